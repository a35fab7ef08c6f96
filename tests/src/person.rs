//! The person at the browser, for tests that log in.

use reqwest::{Client, redirect};
use url::Url;

/// Opens the login page of the development issuer at this address, chooses a user, and gives where the browser is sent then.
///
/// # Panics
/// Where no login page is there, or nobody is sent back.
pub async fn log_in(address: &str, user: &str) -> Url {
    let http = Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap();
    let page = http.get(address).send().await.unwrap().text().await.unwrap();
    let hidden = |name: &str| {
        let value = page.split_once(&format!("name=\"{name}\" value=\"")).map(|(_, after)| after);
        let value = value.and_then(|after| after.split_once('"')).unwrap_or_else(|| panic!("{page}")).0;
        value.replace("&#38;", "&")
    };
    let (request, seal) = (hidden("request"), hidden("seal"));
    let form = [("request", request.as_str()), ("seal", &seal), ("user", user), ("answer", "allow")];
    let action = Url::parse(address).unwrap().join("/authorize").unwrap();
    let answer = http.post(action).form(&form).send().await.unwrap();
    let back = answer.headers().get("location").unwrap_or_else(|| panic!("{answer:?}"));
    Url::parse(back.to_str().unwrap()).unwrap()
}
