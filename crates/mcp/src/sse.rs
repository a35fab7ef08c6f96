//! Server-sent events that carry one message each (WHATWG HTML, *server-sent events*).

use serde_json::Value;

/// The event of a message. JSON as it is written here holds no line break.
pub(crate) fn event(message: &Value) -> String {
    format!("event: message\ndata: {message}\n\n")
}

/// Reads events as their bytes come in. The data of each is given; names, ids and comments are not asked for here.
#[cfg(feature = "client")]
#[derive(Default)]
pub(crate) struct Reader {
    line: Vec<u8>,
    data: Vec<u8>,
}

#[cfg(feature = "client")]
impl Reader {
    /// The data of every event that these bytes complete. Lines end in LF or CRLF. How much comes in all is the caller's to bound.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if let Some(data) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            } else if line.is_empty() && !self.data.is_empty() {
                events.push(std::mem::take(&mut self.data));
            }
        }
        events
    }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_however_it_is_cut() {
        let messages = [json!({ "text": "a\nb\r\n\u{2028}ä" }), json!([1, 2])];
        let written: String = messages.iter().map(event).collect();
        for cut in 1..written.len() {
            let mut reader = Reader::default();
            let events: Vec<Value> = written
                .as_bytes()
                .chunks(cut)
                .flat_map(|bytes| reader.push(bytes))
                .map(|data| serde_json::from_slice(&data).unwrap())
                .collect();
            assert_eq!(events, messages);
        }
    }

    #[test]
    fn comments_names_and_several_lines_of_data_are_read_as_the_standard_says() {
        let mut reader = Reader::default();
        let events = reader.push(b": still here\r\n\r\nid: 7\r\ndata: [1,\r\ndata:2]\r\n\r\n");
        assert_eq!(events, [b"[1,\n2]".to_vec()]);
    }
}
