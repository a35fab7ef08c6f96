//! The name server inside (RFC 1035): answers from a table of its own, the same for allowed and denied names. It asks nobody.

use super::host::Host;
use super::names::Names;

/// The longest question that is read, in bytes: a header, a name, and an EDNS record.
const QUESTION_BYTES_MAX: usize = 1232;
const HEADER_BYTES: usize = 12;
/// How long an answer holds, in seconds; an address stands for its name as long as the sandbox is there.
const TTL_SECONDS: u32 = 60;

const A: u16 = 1;
const INTERNET: u16 = 1;

const NO_ERROR: u8 = 0;
const FORMAT_ERROR: u8 = 1;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;

/// The answer to a message; `None` where there is nothing to answer.
pub(crate) fn answer(message: &[u8], names: &Names) -> Option<Vec<u8>> {
    let (header, rest) = message.split_at_checked(HEADER_BYTES)?;
    let [id_high, id_low, flags, _, question_high, question_low, ..] = header else { return None };
    if flags & 0x80 != 0 {
        return None;
    }
    let reply = |code: u8, question: &[u8], address: Option<[u8; 4]>| {
        let mut out = vec![*id_high, *id_low];
        // An authoritative answer; recursion as desired, and available.
        out.extend([0x84 | flags & 0x79, 0x80 | code]);
        out.extend([0, u8::from(!question.is_empty()), 0, u8::from(address.is_some()), 0, 0, 0, 0]);
        out.extend_from_slice(question);
        if let Some(address) = address {
            // A pointer to the question's name.
            out.extend([0xc0, 12, 0, 1, 0, 1]);
            out.extend(TTL_SECONDS.to_be_bytes());
            out.extend([0, 4]);
            out.extend(address);
        }
        Some(out)
    };
    if flags & 0x78 != 0 {
        return reply(NOT_IMPLEMENTED, &[], None);
    }
    let is_one = [*question_high, *question_low] == [0, 1] && message.len() <= QUESTION_BYTES_MAX;
    let Some(question) = parse_question(rest).filter(|_| is_one) else {
        return reply(FORMAT_ERROR, &[], None);
    };
    let Ok(host) = Host::of_wire(&question.name) else {
        return reply(NO_SUCH_NAME, question.bytes, None);
    };
    if (question.kind, question.class) != (A, INTERNET) {
        return reply(NO_ERROR, question.bytes, None);
    }
    match names.address(&host) {
        Some(address) => reply(NO_ERROR, question.bytes, Some(address.octets())),
        None => reply(SERVER_FAILURE, question.bytes, None),
    }
}

struct Question<'m> {
    /// With dots between labels; a label that holds a dot is none of a host's.
    name: Vec<u8>,
    kind: u16,
    class: u16,
    bytes: &'m [u8],
}

fn parse_question(message: &[u8]) -> Option<Question<'_>> {
    let (mut name, mut rest) = (Vec::new(), message);
    loop {
        let (length, after) = rest.split_first()?;
        // No pointers: there is nothing in front that one could point to.
        if *length > 63 || name.len() > 255 {
            return None;
        }
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        if label.is_empty() {
            break;
        }
        if label.contains(&b'.') {
            return None;
        }
        if !name.is_empty() {
            name.push(b'.');
        }
        name.extend_from_slice(label);
    }
    let ([kind_high, kind_low, class_high, class_low], after) = rest.split_at_checked(4)? else {
        return None;
    };
    Some(Question {
        name,
        kind: u16::from_be_bytes([*kind_high, *kind_low]),
        class: u16::from_be_bytes([*class_high, *class_low]),
        bytes: message.get(..message.len() - after.len())?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn question(name: &[u8], kind: u8) -> Vec<u8> {
        let mut out = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split(|byte| *byte == b'.') {
            out.push(u8::try_from(label.len()).unwrap());
            out.extend(label);
        }
        out.extend([0, 0, kind, 0, 1]);
        out
    }

    fn asked(name: &[u8], kind: u8) -> (u8, usize, Vec<u8>) {
        let question = question(name, kind);
        let answer = answer(&question, &Names::default()).unwrap();
        let address = answer.get(question.len() + 12..).unwrap_or_default();
        (answer[3] & 15, usize::from(answer[7]), address.to_vec())
    }

    #[test]
    fn a_name_has_one_address_and_nothing_else() {
        assert_eq!(asked(b"Api.Allowed.test", 1), (NO_ERROR, 1, vec![127, 1, 0, 1]));
        assert_eq!(asked(b"evil.test", 1), (NO_ERROR, 1, vec![127, 1, 0, 1]));
        for kind in [28, 12, 15, 16, 65, 255] {
            assert_eq!(asked(b"api.allowed.test", kind), (NO_ERROR, 0, vec![]), "{kind}");
        }
    }

    #[test]
    fn what_is_no_host_has_no_address() {
        for name in [b"evil.test\0".as_slice(), b"a b.test", b"a%2e.test", b"a_b.test", b"127.1", b"a@b.test"]
        {
            assert_eq!(asked(name, 1), (NO_SUCH_NAME, 0, vec![]));
        }
        let mut dotted = question(b"aXb.test", 1);
        dotted[14] = b'.';
        assert_eq!(answer(&dotted, &Names::default()).unwrap()[3] & 15, FORMAT_ERROR);
    }

    #[test]
    fn an_answer_is_not_answered() {
        let mut message = question(b"a.test", 1);
        message[2] |= 0x80;
        assert_eq!(answer(&message, &Names::default()), None);
        assert_eq!(answer(b"short", &Names::default()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message: Vec<u8>) {
            let _any = answer(&message, &Names::default());
        }
    }
}
