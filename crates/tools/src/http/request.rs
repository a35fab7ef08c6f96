//! A request out of values: no value can change the host, the number of path segments, a parameter's name or a header.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderValue;
use reqwest::{Client, Method as WireMethod, RequestBuilder};
use ringfence_actions::{HttpRequest, Method, PathSegment};
use ringfence_core::{Arguments, ParamName, Value};
use ringfence_identity::credential::Held;
use serde_json::{Map, Value as Json};
use url::Url;

/// All but the unreserved characters of RFC 3986 §2.3.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A value cannot stand in a path or query without changing its shape.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Misfit;

/// The URL of a call: base, path and query. It is put together, parsed again, and compared segment by segment.
pub(super) fn url(base: &Url, request: &HttpRequest, arguments: &Arguments) -> Result<Url, Misfit> {
    let segments = request.path.iter().map(|part| segment(part, arguments)).collect::<Result<Vec<_>, _>>()?;
    let prefix = base.path().trim_end_matches('/');
    let mut url = base.clone();
    url.set_path(&format!("{prefix}/{}", segments.join("/")));
    url.set_query(None);
    let present =
        request.query.iter().filter_map(|name| Some((name.as_str(), arguments.value(name.as_str())?)));
    let pairs = present.map(|(name, value)| Ok((name, plain(value)?)));
    let pairs: Vec<(&str, String)> = pairs.collect::<Result<_, Misfit>>()?;
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(&pairs);
    }
    let read_again = Url::parse(url.as_str()).map_err(|_| Misfit)?;
    let path_again =
        read_again.path().strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')).ok_or(Misfit)?;
    let same_path = path_again.split('/').eq(segments.iter().map(String::as_str));
    let same_query = read_again
        .query_pairs()
        .eq(pairs.iter().map(|(name, value)| ((*name).into(), value.as_str().into())));
    let fits =
        same_path && same_query && read_again.origin() == base.origin() && read_again.fragment().is_none();
    fits.then_some(read_again).ok_or(Misfit)
}

fn segment(part: &PathSegment, arguments: &Arguments) -> Result<String, Misfit> {
    let text = match part {
        PathSegment::Fixed(text) => return Ok(text.clone()),
        PathSegment::Param(name) => plain(arguments.value(name.as_str()).ok_or(Misfit)?)?,
    };
    // Parsers drop a dot segment even where its dots are encoded, and many servers decode an encoded slash.
    let changes_shape = text.is_empty() || text == "." || text == ".." || text.contains(['/', '\\']);
    if changes_shape { Err(Misfit) } else { Ok(utf8_percent_encode(&text, SEGMENT).to_string()) }
}

/// A scalar as text; a list as its items with commas between. An item that holds one would be two to whoever reads it, and a
/// list of nothing would often be read as no limit at all.
fn plain(value: &Value) -> Result<String, Misfit> {
    Ok(match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Number(decimal) => decimal.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Array(items) => {
            let items = items.iter().map(plain).collect::<Result<Vec<_>, _>>()?;
            if items.is_empty() || items.iter().any(|item| item.contains(',')) {
                return Err(Misfit);
            }
            items.join(",")
        }
    })
}

/// The request itself.
pub(super) fn build(
    client: &Client,
    url: Url,
    request: &HttpRequest,
    arguments: &Arguments,
    credential: Option<&Held>,
) -> RequestBuilder {
    let mut builder = client.request(method(request.method), url).header("accept", "application/json");
    if let Some(credential) = credential {
        // One that no header can carry was refused where it was made.
        if let Ok(mut value) = HeaderValue::from_str(credential.value.expose()) {
            value.set_sensitive(true);
            builder = builder.header(&credential.header, value);
        }
    }
    if request.body.is_empty() { builder } else { builder.json(&body(&request.body, arguments)) }
}

fn body(names: &[ParamName], arguments: &Arguments) -> Json {
    let present =
        names.iter().filter_map(|name| Some((name.to_string(), arguments.value(name.as_str())?.to_json())));
    Json::Object(present.collect::<Map<_, _>>())
}

fn method(method: Method) -> WireMethod {
    match method {
        Method::Get => WireMethod::GET,
        Method::Post => WireMethod::POST,
        Method::Put => WireMethod::PUT,
        Method::Patch => WireMethod::PATCH,
        Method::Delete => WireMethod::DELETE,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> ParamName {
        ParamName::new(text.to_owned()).unwrap()
    }

    fn built(id: &str, words: &[String]) -> Result<Url, Misfit> {
        let path = vec![
            PathSegment::Fixed("tickets".into()),
            PathSegment::Param(name("id")),
            PathSegment::Fixed("notes".into()),
        ];
        let query = vec![name("words")];
        let request = HttpRequest { method: Method::Get, path, query, body: vec![], returns: vec![] };
        let words = words.iter().cloned().map(Value::String).collect();
        let arguments = [(name("id"), Value::String(id.to_owned())), (name("words"), Value::Array(words))];
        let base = Url::parse("https://tickets.example/api").unwrap();
        url(&base, &request, &Arguments::new(BTreeMap::from(arguments)))
    }

    proptest! {
        #[test]
        fn no_value_changes_the_shape_of_a_request(id in "\\PC{0,12}|[./\\\\%2eE?#&;@:\r\n]{0,8}", words in proptest::collection::vec("\\PC{0,6}|[,&=+#]{0,4}", 0..4)) {
            if let Ok(url) = built(&id, &words) {
                prop_assert_eq!(url.origin().ascii_serialization(), "https://tickets.example");
                let segments: Vec<String> = url
                    .path_segments().unwrap().map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned()).collect();
                prop_assert_eq!(segments, vec!["api".to_owned(), "tickets".into(), id, "notes".into()]);
                let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
                prop_assert_eq!(pairs.len(), 1);
                prop_assert_eq!(pairs[0].1.split(',').collect::<Vec<_>>(), words);
                prop_assert_eq!(url.fragment(), None);
            }
        }
    }

    #[test]
    fn values_that_would_are_refused() {
        let one = ["a".to_owned()];
        assert!(built("T-1", &one).is_ok(), "the control");
        for id in ["", ".", "..", "a/b", "a\\b"] {
            assert_eq!(built(id, &one), Err(Misfit), "{id}");
        }
        assert_eq!(built("T-1", &["user,admin".into()]), Err(Misfit));
        assert_eq!(built("T-1", &[]), Err(Misfit));
    }
}
