//! Calls whose run ends while they wait: none of them begins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringfence_actions::{ActionSpace, File, SystemKind};
use ringfence_core::{
    AgentId, Authorities, Call, CallId, EntryNumber, Instant, Permit, Place, Principal, Run, Secret,
    SystemName, Ticket,
};
use ringfence_identity::Endpoint;
use ringfence_identity::credential::{ClientSettings, Credential, Exchange, ExchangeSettings, Target};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::{Ended, HttpSettings, Outcome, SystemSettings, Systems, Watch, run};

const CALLS: usize = 40;

async fn systems(tool: &str, settings: SystemSettings) -> Systems {
    let system = SystemName::new("crm").unwrap();
    let kinds = BTreeMap::from([(system.clone(), settings.kind())]);
    let text = format!(
        "[t]\nsystem = \"crm\"\neffect = \"write\"\ndescribe = \"T.\"\nlimits = {{ seconds = 60 }}\n{tool}"
    );
    let mut problems = Vec::new();
    let space = ActionSpace::read(&[File { name: "tools/t.toml", text: &text }], &kinds, &mut problems);
    let systems = Systems::open(BTreeMap::from([(system, settings)]), Arc::new(space), &mut problems).await;
    assert_eq!(problems, []);
    systems
}

fn ticket(systems: &Systems) -> Ticket {
    let Authorities { decider, recorder, verifier } = Authorities::establish();
    let principal =
        Principal::verified(&verifier, "i".into(), "bob".into(), [].into(), serde_json::Map::new());
    let (id, agent) = (serde_json::from_value(json!("run-1")).unwrap(), AgentId::new("agent").unwrap());
    let run = Run::new(id, principal, agent, Instant(u64::MAX), Arc::default(), [].into());
    let tool = systems.space.tool("t").unwrap();
    let arguments = tool.check(&serde_json::Map::new(), run.principal()).unwrap();
    let id = CallId(serde_json::from_value(json!("0192f0c1-7b1e-7c3a-9f00-3b1f5a2c4d6e")).unwrap());
    let call = Call::new(id, Instant(0), run, tool.name().clone(), tool.system().clone(), arguments);
    Ticket::issue(&recorder, Permit::grant(&decider, call, Vec::new()), EntryNumber(1))
}

/// Begins all the calls of one run, does this once all of them wait, and gives how each ended.
async fn all(systems: Systems, watch: &Watch, meanwhile: impl FnOnce()) -> Vec<&'static str> {
    let systems = Arc::new(systems);
    let calls: Vec<_> = (0..CALLS)
        .map(|_| {
            let (systems, watch) = (systems.clone(), watch.clone());
            let token = Secret::new("token-of-bob".into());
            tokio::spawn(async move { run(ticket(&systems), &systems, Some(&token), &watch).await })
        })
        .collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    meanwhile();
    let mut ended = Vec::new();
    for call in calls {
        ended.push(word(&call.await.unwrap()));
    }
    ended
}

fn word(outcome: &Outcome) -> &'static str {
    match &outcome.ended {
        Ended::Done(_) => "done",
        Ended::Failed(refusal) => refusal.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_queued_write_of_a_run_that_ended_does_not_begin() {
    for ends in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crm.db");
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
        let place = Place { file: "ringfence.toml".into(), line: 1, column: 1 };
        let settings = SystemSettings::Sqlite { path, place };
        let systems = systems("sql = \"INSERT INTO notes VALUES ('x')\"", settings).await;
        // Nobody else can write until the run has ended.
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let cancel = CancellationToken::new();
        let watch = Watch::new(None, cancel.clone());
        let ended = all(systems, &watch, || {
            if ends {
                cancel.cancel();
            }
            other.execute_batch("ROLLBACK").unwrap();
        });
        let ended = ended.await;
        let written: u16 = other.query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap();
        if ends {
            assert_eq!((written, ended), (0, vec!["cancelled"; CALLS]));
        } else {
            assert_eq!((usize::from(written), ended), (CALLS, vec!["done"; CALLS]), "the control");
        }
    }
}

/// An authorization server, which does something before it answers, and an API behind it, which counts what it is asked.
async fn api(before: impl Fn() + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, asked) = (format!("http://{}", listener.local_addr().unwrap()), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            let body = if request[..read].starts_with(b"POST /token ") {
                before();
                let kind = "urn:ietf:params:oauth:token-type:access_token";
                json!({ "access_token": "downstream-token", "token_type": "Bearer", "expires_in": 60, "issued_token_type": kind })
            } else {
                count.fetch_add(1, Ordering::SeqCst);
                json!({ "id": 1 })
            };
            let body = body.to_string();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, asked)
}

#[tokio::test]
async fn a_request_of_a_run_that_ended_while_its_credential_was_made_is_not_sent() {
    for ends in [true, false] {
        let cancel = CancellationToken::new();
        let run_ends = cancel.clone();
        let (url, asked) = api(move || {
            if ends {
                run_ends.cancel();
            }
        })
        .await;
        let client = ClientSettings {
            token_endpoint: Endpoint::new(&format!("{url}/token")).unwrap(),
            client_id: "gateway".into(),
            client_secret: Some(Secret::new("secret".into())),
        };
        let target = Target::Resource(url.clone());
        let exchange = ExchangeSettings { client, target, scopes: vec!["write".into()], act_required: false };
        let credential = Some(Credential::Exchange(Box::new(Exchange::new(exchange).unwrap())));
        let settings = SystemSettings::Http(HttpSettings { base_url: url.parse().unwrap(), credential });
        assert_eq!(settings.kind(), SystemKind::Http);
        let systems =
            systems("http = { method = \"POST\", path = \"/notes\", returns = [\"id\"] }", settings).await;
        let ended = all(systems, &Watch::new(None, cancel), || {}).await;
        let asked = asked.load(Ordering::SeqCst);
        if ends {
            assert_eq!((asked, ended), (0, vec!["cancelled"; CALLS]));
        } else {
            assert_eq!((asked, ended), (CALLS, vec!["done"; CALLS]), "the control");
        }
    }
}
