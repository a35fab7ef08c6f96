//! Lists, page by page (pagination, both revisions).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::methods::object;
use crate::message::RpcError;

/// One page of a list.
pub(super) struct Page<'a, T> {
    pub(super) items: Vec<&'a T>,
    pub(super) next: Next,
}

/// Where the next page begins, if there is one.
pub(super) struct Next(Option<String>);

impl Next {
    /// The result of a list.
    pub(super) fn finish<const N: usize>(self, fields: [(&str, Value); N]) -> Map<String, Value> {
        let mut result = object(fields);
        result.extend(self.0.map(|cursor| ("nextCursor".to_owned(), cursor.into())));
        result
    }
}

/// The page that a request asks for, of items in the order of their keys.
///
/// A cursor is the key of the last item shown: it holds no state, so nothing is kept for it.
pub(super) fn page<'a, T>(
    items: &'a [T],
    key: impl Fn(&T) -> &str,
    params: &Map<String, Value>,
    size: usize,
) -> Result<Page<'a, T>, RpcError> {
    let after = match params.get("cursor") {
        None => None,
        Some(cursor) => {
            let after = cursor.as_str().and_then(|cursor| URL_SAFE_NO_PAD.decode(cursor).ok());
            let after = after.and_then(|bytes| String::from_utf8(bytes).ok());
            let foreign = || RpcError::invalid_params("`cursor` is not one that was given out here");
            Some(after.ok_or_else(foreign)?)
        }
    };
    let is_after = |item: &&T| after.as_ref().is_none_or(|after| key(item) > after.as_str());
    let mut rest = items.iter().filter(is_after);
    let items: Vec<&T> = rest.by_ref().take(size).collect();
    let last = rest.next().and(items.last());
    let next = Next(last.map(|last| URL_SAFE_NO_PAD.encode(key(last))));
    Ok(Page { items, next })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pages_of_a_list_are_the_list() {
        let all = ["a", "b", "c", "d"].map(str::to_owned);
        for size in 1..6 {
            let (mut seen, mut params) = (Vec::new(), Map::new());
            loop {
                let page = page(&all, |item| item, &params, size).unwrap();
                seen.extend(page.items.into_iter().cloned());
                let Some(cursor) = page.next.0 else { break };
                params.insert("cursor".into(), cursor.into());
            }
            assert_eq!(seen, all);
        }
        let foreign = Map::from_iter([("cursor".to_owned(), json!("***"))]);
        assert!(page(&all, |item| item, &foreign, 2).is_err());
    }
}
