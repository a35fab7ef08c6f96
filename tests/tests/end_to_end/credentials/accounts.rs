//! The account that a user connects at a third party: asked for as the client can, connected in a browser, used, ended.

use ringfence_mcp::Revision;
use ringfence_tests::{Project, Serving, ringfence};
use serde_json::{Value, json};

use super::world::{ACCOUNT_CODE, LOGIN_CODE, STATIC_KEY, World};
use super::{connected, tool_call};

/// A browser with one cookie that follows nothing by itself.
#[derive(Default)]
pub(super) struct Browser {
    cookie: Option<String>,
}

impl Browser {
    /// The status, where it is sent, and the page.
    pub(super) async fn get(&mut self, url: &str) -> (u16, String, String) {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        let request = client.get(url);
        let request = match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        };
        let response = request.send().await.unwrap();
        let header =
            |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        if let Some(cookie) = header("set-cookie") {
            self.cookie = Some(cookie.split(';').next().unwrap().to_owned());
        }
        let (status, location) = (response.status().as_u16(), header("location").unwrap_or_default());
        (status, location, response.text().await.unwrap())
    }

    /// Follows a link, logs in with this code, and connects.
    pub(super) async fn connect(&mut self, link: &str, login_code: &str) -> (u16, String) {
        let (_, to_login, _) = self.get(link).await;
        let (status, _, page) = self.get(&back(&to_login, login_code)).await;
        let Some(button) = page.split("<a href=\"").nth(1).and_then(|rest| rest.split('"').next()) else {
            return (status, page);
        };
        let (status, _, page) = self.get(&back(&button.replace("&amp;", "&"), ACCOUNT_CODE)).await;
        (status, page)
    }
}

/// Where a browser comes back to from there, with this code.
fn back(sent_to: &str, code: &str) -> String {
    let url = reqwest::Url::parse(sent_to).unwrap();
    let of = |name: &str| url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    format!("{}?code={code}&state={}", of("redirect_uri"), of("state"))
}

fn started() -> (World, Project, Serving) {
    let world = World::new();
    let project = world.project();
    world.can_log_in(&project, LOGIN_CODE, "bob");
    world.can_log_in(&project, "login-of-eve-1", "eve");
    let serving = project.serve_in(&[("CANARY_KEY", STATIC_KEY)]);
    (world, project, serving)
}

#[test]
fn an_account_is_connected_by_its_user_and_used_until_it_is_disconnected() {
    let (world, project, serving) = started();
    let client = serving.client(&project.token("bob", &[]), Revision::V2026);
    let call =
        || world.runtime.block_on(client.call(tool_call("echo_account"))).unwrap().body["result"].clone();
    let refused = call()["structuredContent"]["refusal"].clone();
    assert_eq!((&refused["code"], &refused["retry"]), (&json!("account_needed"), &json!("later")));
    let link = link_in(refused["message"].as_str().unwrap());
    assert!(
        link.starts_with(&format!("http://{}/connect/account?ticket=", project.setting("control"))),
        "{link}"
    );
    // A stolen link connects nothing, and stays good for whom it was made.
    let (status, page) = world.runtime.block_on(Browser::default().connect(&link, "login-of-eve-1"));
    assert_eq!((status, page.contains("This link is another user")), (403, true), "{page}");
    assert_eq!(connected(&project), Vec::<Value>::new());
    let (status, page) = world.runtime.block_on(Browser::default().connect(&link, LOGIN_CODE));
    assert_eq!((status, page.contains("Connected")), (200, true), "{page}");
    assert_eq!(call()["structuredContent"]["marker"], "ordinary-marker");
    assert_eq!(connected(&project)[0]["subject"], "bob");
    let eve = serving.client(&project.token("eve", &[]), Revision::V2026);
    let eves = world.runtime.block_on(eve.call(tool_call("echo_account"))).unwrap().body;
    assert_eq!(eves["result"]["structuredContent"]["refusal"]["code"], "account_needed");
    let fixed = ["accounts", "disconnect", "--system", "account", "--project", project.path(), "--user"];
    assert_eq!(ringfence(&[&fixed[..], &["eve"]].concat()).code, 1, "she has none");
    assert_eq!(ringfence(&[&fixed[..], &["bob"]].concat()).code, 0);
    assert_eq!(call()["structuredContent"]["refusal"]["code"], "account_needed", "at once");
}

fn link_in(message: &str) -> String {
    let from = message.find("http").unwrap();
    message[from..].split([';', ' ', ',']).next().unwrap().to_owned()
}

#[test]
fn a_client_that_opens_pages_is_asked_to_in_its_own_revision() {
    let (world, project, serving) = started();
    let token = project.token("bob", &[]);
    let send = |revision: Revision, method: &str, params: Value| {
        let client = serving.client(&token, revision);
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let headers = client.headers(method, params["name"].as_str());
        world.runtime.block_on(client.send(headers, body)).unwrap().body
    };
    let newest = |capabilities: Value, more: Option<Value>| {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": capabilities
        });
        let mut params = json!({ "name": "echo_account", "arguments": {}, "_meta": meta });
        params["inputResponses"] = more.unwrap_or_default();
        params.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        send(Revision::V2026, "tools/call", params)["result"].clone()
    };
    let asked = newest(json!({ "elicitation": { "url": {} } }), None);
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let question = &asked["inputRequests"]["open-url"];
    assert_eq!(
        (&question["method"], &question["params"]["mode"]),
        (&json!("elicitation/create"), &json!("url"))
    );
    let link = question["params"]["url"].as_str().unwrap().to_owned();
    let answered = json!({ "open-url": { "action": "accept" } });
    let told = newest(json!({ "elicitation": { "url": {} } }), Some(answered));
    assert_eq!(
        told["structuredContent"]["refusal"]["code"], "account_needed",
        "asked once for a call: {told}"
    );
    assert_eq!(newest(json!({ "elicitation": {} }), None)["isError"], true, "forms alone");
    let older = || send(Revision::V2025, "tools/call", json!({ "name": "echo_account", "arguments": {} }));
    assert_eq!(older()["result"]["isError"], true, "it has not said that it opens pages");
    let hello = |capabilities: Value| json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": { "name": "t", "version": "1" } });
    send(Revision::V2025, "initialize", hello(json!({ "elicitation": { "form": {}, "url": {} } })));
    let error = older()["error"].clone();
    assert_eq!(
        (&error["code"], &error["data"]["elicitations"][0]["mode"]),
        (&json!(-32042), &json!("url")),
        "{error}"
    );
    assert_eq!(error["data"]["elicitations"][0]["url"], link, "the same link, as long as it is good");
    send(Revision::V2025, "initialize", hello(json!({})));
    assert_eq!(older()["result"]["isError"], true);
    let (status, _) = world.runtime.block_on(Browser::default().connect(&link, LOGIN_CODE));
    assert_eq!(status, 200);
    assert_eq!(
        newest(json!({ "elicitation": { "url": {} } }), None)["structuredContent"]["marker"],
        "ordinary-marker"
    );
}
