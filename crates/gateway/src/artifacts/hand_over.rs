//! Hands the files of a call over: small images with the result, the rest as links. Nothing that a call says of its files is
//! believed: names are cleaned, types are checked, and an image has to begin as one does.

use axum::body::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ringfence_core::{CallId, RunId};
use ringfence_tools::{Artifact, Output};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::{Kept, Link};
use crate::Reply;
use crate::pipeline::Inner;

/// The longest image that comes with the result.
const IMAGE_MAX: usize = 256 << 10;
/// Images of one result, in bytes.
const IMAGES_MAX: usize = 1 << 20;
/// Files of one result.
const FILES_MAX: usize = 32;
/// The longest name, in bytes.
const NAME_MAX: usize = 100;
/// The longest media type, in bytes.
const MIME_TYPE_MAX: usize = 100;

/// A file as the agent gets it.
#[derive(Clone, Debug)]
pub enum Handed {
    /// An image, with the result.
    Image {
        /// Its media type.
        mime_type: &'static str,
        /// The image.
        bytes: Bytes,
    },
    /// Where it can be read for a while.
    Link(Link),
}

impl Inner {
    /// The reply of a call that was done. The labels of its result must be on the run.
    pub(crate) fn hand_over(&self, run: &RunId, call: CallId, output: Output) -> Reply {
        let Output { mut structured, text, artifacts } = output;
        let (mut handed, mut listed, mut images) = (Vec::new(), Vec::new(), 0);
        let left_out = artifacts.len().saturating_sub(FILES_MAX);
        for artifact in artifacts.into_iter().take(FILES_MAX) {
            let name = clean_name(&artifact.name);
            let mut entry = json!({
                "name": name, "mime_type": clean_mime_type(&artifact.mime_type), "bytes": artifact.bytes.len(),
            });
            let one = match image(&artifact).filter(|_| images + artifact.bytes.len() <= IMAGES_MAX) {
                Some(mime_type) => {
                    images += artifact.bytes.len();
                    Some(Handed::Image { mime_type, bytes: artifact.bytes.into() })
                }
                None => self.link(run, call, name, artifact).map(Handed::Link),
            };
            let (key, value): (&str, Json) = match &one {
                Some(Handed::Image { .. }) => ("inline", true.into()),
                Some(Handed::Link(link)) => ("uri", link.uri.as_str().into()),
                None => ("left_out", true.into()),
            };
            if let Some(entry) = entry.as_object_mut() {
                entry.insert(key.into(), value);
            }
            handed.extend(one);
            listed.push(entry);
        }
        if let (Some(structured), false) = (structured.as_object_mut(), listed.is_empty()) {
            structured.insert("artifacts".into(), listed.into());
            structured.extend((left_out > 0).then(|| ("artifacts_left_out".to_owned(), left_out.into())));
        }
        let text = text.unwrap_or_else(|| structured.to_string());
        Reply::Done { structured, text, artifacts: handed }
    }

    /// Keeps a file; none where it is too much.
    fn link(&self, run: &RunId, call: CallId, name: String, artifact: Artifact) -> Option<Link> {
        // 122 random bits, so that an address says nothing and cannot be guessed.
        let id = Uuid::new_v4().simple();
        let uri = format!("ringfence://artifacts/{id}/{}", utf8_percent_encode(&name, NON_ALPHANUMERIC));
        let link = Link {
            uri,
            name,
            mime_type: clean_mime_type(&artifact.mime_type),
            bytes: artifact.bytes.len() as u64,
        };
        let (run, at) = (run.clone(), self.clock.now());
        let kept = Kept { link: link.clone(), bytes: artifact.bytes.into(), call, run, at };
        self.artifacts.keep(kept).then_some(link)
    }
}

/// The type of an image that comes with the result: one that models are shown, of a file that begins as such an image does.
fn image(artifact: &Artifact) -> Option<&'static str> {
    let bytes = artifact.bytes.as_slice();
    let (mime_type, begins) = match artifact.mime_type.as_str() {
        "image/png" => ("image/png", bytes.starts_with(b"\x89PNG\r\n\x1a\n")),
        "image/jpeg" => ("image/jpeg", bytes.starts_with(b"\xff\xd8\xff")),
        "image/gif" => ("image/gif", bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a")),
        "image/webp" => ("image/webp", bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")),
        _ => return None,
    };
    (begins && bytes.len() <= IMAGE_MAX).then_some(mime_type)
}

/// A name without what a terminal, a page or a model could take for something else.
fn clean_name(name: &str) -> String {
    let is_plain = |char: &char| char.is_alphanumeric() || " ._-()+,@".contains(*char);
    let plain: String = name.chars().map(|char| if is_plain(&char) { char } else { '_' }).collect();
    let cut = plain.get(..plain.floor_char_boundary(NAME_MAX)).unwrap_or_default().trim();
    if cut.is_empty() { "unnamed".to_owned() } else { cut.to_owned() }
}

/// `type/subtype` (RFC 6838 §4.2), or bytes of no known type.
fn clean_mime_type(mime_type: &str) -> String {
    let is_plain = |part: &str| {
        let mut chars = part.chars();
        chars.next().is_some_and(|first| first.is_ascii_alphanumeric())
            && chars.all(|char| char.is_ascii_alphanumeric() || "!#$&-^_.+".contains(char))
    };
    let is_sound = mime_type.len() <= MIME_TYPE_MAX
        && mime_type.split_once('/').is_some_and(|(top, sub)| is_plain(top) && is_plain(sub));
    if is_sound { mime_type.to_ascii_lowercase() } else { "application/octet-stream".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_an_image_of_its_type_and_small_comes_with_the_result() {
        let is_image = |mime_type: &str, bytes: &[u8]| {
            image(&Artifact { name: "a".into(), mime_type: mime_type.into(), bytes: bytes.to_vec() })
        };
        let png = b"\x89PNG\r\n\x1a\n...";
        assert_eq!(is_image("image/png", png), Some("image/png"), "the control");
        assert_eq!(is_image("image/webp", b"RIFF....WEBPVP8 "), Some("image/webp"));
        assert_eq!(is_image("image/jpeg", png), None);
        assert_eq!(is_image("image/svg+xml", b"<svg onload='x'>"), None);
        assert_eq!(is_image("image/png", &[png.as_slice(), &vec![0; IMAGE_MAX]].concat()), None);
    }

    #[test]
    fn names_and_types_are_cleaned() {
        assert_eq!(clean_name("plot 1.png"), "plot 1.png");
        assert_eq!(clean_name("../../etc/passwd\n\u{202e}gnp"), ".._.._etc_passwd__gnp");
        assert_eq!((clean_name("\u{7}"), clean_name("  ")), ("_".to_owned(), "unnamed".to_owned()));
        assert!(clean_name(&"ä".repeat(500)).len() <= NAME_MAX);
        assert_eq!(clean_mime_type("Text/CSV"), "text/csv");
        for odd in ["text", "text/", "/csv", "text/html; charset=x", "a/b\r\nx: y", "text/c v"] {
            assert_eq!(clean_mime_type(odd), "application/octet-stream", "{odd}");
        }
    }
}
