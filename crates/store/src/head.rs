//! The signed head: how many entries there are and the hash of the last, as a C2SP signed note
//! (<https://c2sp.org/signed-note>, the body as in <https://c2sp.org/tlog-checkpoint>).

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_core::{Digest, Secret};

const ED25519_KIND: u8 = 1;

/// A head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// How many entries there are.
    pub entries: u64,
    /// The hash of the last one.
    pub hash: Digest,
}

impl Head {
    /// The head of a journal that has no entries yet.
    pub const NONE: Self = Self { entries: 0, hash: Digest::ZERO };
}

/// Why a head is not believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeadRefused {
    /// It is not a signed note of this form.
    #[error("the head is not a signed note")]
    Malformed,
    /// The signature is not by this key over this text.
    #[error("the head was not signed with this journal's key")]
    Signature,
    /// The key is not one.
    #[error("the journal's key is not one")]
    Key,
}

/// Signs heads, and knows how they are checked. Tags entries too, so that nobody without it can append one.
pub struct HeadKey {
    origin: String,
    pair: Ed25519KeyPair,
    entries: hmac::Key,
}

/// A new key (Ed25519, PKCS #8, base64); `None` where the machine has no randomness.
#[must_use]
pub fn new_key() -> Option<Secret> {
    let pair = Ed25519KeyPair::generate().ok()?;
    Some(Secret::new(STANDARD.encode(pair.to_pkcs8v1().ok()?.as_ref())))
}

impl HeadKey {
    /// The key that [`new_key`] made. The journal is named after it, so that no setting can make it another's.
    pub fn new(key: &Secret) -> Result<Self, HeadRefused> {
        let pkcs8 = STANDARD.decode(key.expose().trim()).map_err(|_| HeadRefused::Key)?;
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| HeadRefused::Key)?;
        let fingerprint = Digest::of(&[pair.public_key().as_ref()]).to_string();
        let origin = format!("ringfence/{}", fingerprint.get(..16).unwrap_or(&fingerprint));
        // A key of its own for each purpose, out of one secret.
        let secret =
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &pkcs8), b"ringfence journal entry tags v1");
        let entries = hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref());
        Ok(Self { origin, pair, entries })
    }

    /// The note for a head.
    #[must_use]
    pub fn sign(&self, head: &Head) -> String {
        let text = self.text(head);
        let signature = self.pair.sign(text.as_bytes());
        let signed: Vec<u8> = self.id().iter().chain(signature.as_ref()).copied().collect();
        format!("{text}\n— {} {}\n", self.origin, STANDARD.encode(signed))
    }

    /// The head of a note, if this key signed it.
    pub fn open(&self, note: &str) -> Result<Head, HeadRefused> {
        let (text, signatures) = note.split_once("\n\n").ok_or(HeadRefused::Malformed)?;
        let text = format!("{text}\n");
        let signed = signatures.strip_prefix("— ").and_then(|rest| rest.trim_end().split_once(' '));
        let (_, encoded) = signed.ok_or(HeadRefused::Malformed)?;
        let signed = STANDARD.decode(encoded).map_err(|_| HeadRefused::Malformed)?;
        let (id, signature) = signed.split_at_checked(4).ok_or(HeadRefused::Malformed)?;
        let public = UnparsedPublicKey::new(&ED25519, self.pair.public_key().as_ref());
        if id != self.id() || public.verify(text.as_bytes(), signature).is_err() {
            return Err(HeadRefused::Signature);
        }
        let mut lines = text.lines();
        let (origin, entries, hash) = (lines.next(), lines.next(), lines.next());
        if origin != Some(self.origin.as_str()) {
            return Err(HeadRefused::Signature);
        }
        let hash: Option<[u8; 32]> =
            hash.and_then(|hash| STANDARD.decode(hash).ok()).and_then(|hash| hash.try_into().ok());
        let entries = entries.and_then(|entries| entries.parse().ok());
        Ok(Head {
            entries: entries.ok_or(HeadRefused::Malformed)?,
            hash: hash.ok_or(HeadRefused::Malformed)?.into(),
        })
    }

    /// The tag of the entry with this hash: a head says who wrote all up to it, a tag who wrote what no head covers yet.
    pub(crate) fn tag(&self, hash: &Digest) -> [u8; 32] {
        let mut tag = [0; 32];
        for (to, from) in tag.iter_mut().zip(hmac::sign(&self.entries, hash.as_bytes()).as_ref()) {
            *to = *from;
        }
        tag
    }

    /// Whether this key made the tag of the entry with this hash.
    pub(crate) fn made(&self, tag: &[u8; 32], hash: &Digest) -> bool {
        hmac::verify(&self.entries, hash.as_bytes(), tag).is_ok()
    }

    fn text(&self, head: &Head) -> String {
        format!("{}\n{}\n{}\n", self.origin, head.entries, STANDARD.encode(head.hash.as_bytes()))
    }

    /// The first four bytes of SHA-256(name ‖ `\n` ‖ kind ‖ public key), as the format wants.
    fn id(&self) -> [u8; 4] {
        let digest =
            Digest::of(&[self.origin.as_bytes(), b"\n", &[ED25519_KIND], self.pair.public_key().as_ref()]);
        let [a, b, c, d, ..] = *digest.as_bytes();
        [a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_believed_only_as_it_was_signed() {
        let key = HeadKey::new(&new_key().unwrap()).unwrap();
        let head = Head { entries: 7, hash: Digest::of(&[b"x"]) };
        let note = key.sign(&head);
        assert_eq!(key.open(&note), Ok(head));
        assert_eq!(key.open(&note.replace("\n7\n", "\n6\n")), Err(HeadRefused::Signature));
        assert_eq!(key.open("ringfence/test\n7\n"), Err(HeadRefused::Malformed));
        let other = HeadKey::new(&new_key().unwrap()).unwrap();
        assert_eq!(other.open(&note), Err(HeadRefused::Signature));
    }
}
