//! A sandbox's side and the world outside: fake servers, a fake resolver, a journal.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::egress::authority::Authority;
use crate::egress::trust::provider;
use crate::egress::*;

pub(super) const ALLOWED: &str = "api.allowed.test";
pub(super) const SECRET: &str = "sk-live-0123456789";
pub(super) const PLACEHOLDER: &str = "placeholder-abcdef";

/// Records decisions, unless it is told to fail.
#[derive(Default)]
pub(super) struct Journal {
    pub(super) decisions: Mutex<Vec<Decision>>,
    pub(super) is_broken: AtomicBool,
}

#[async_trait::async_trait]
impl Watch for Journal {
    async fn decided(&self, decision: &Decision) -> Result<(), Unrecorded> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(Unrecorded);
        }
        self.decisions.lock().unwrap().push(decision.clone());
        Ok(())
    }
}

/// Knows what it is told; remembers what it was asked.
pub(super) struct FakeResolver {
    pub(super) answers: Vec<SocketAddr>,
    pub(super) asked: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Resolver for FakeResolver {
    async fn resolve(&self, host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.asked.lock().unwrap().push(format!("{host}:{port}"));
        Ok(self.answers.clone())
    }
}

/// A server on loopback that remembers what it got. It answers HTTP, or where it is no HTTP echoes it.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) got: Arc<Mutex<Vec<u8>>>,
    pub(super) ca_pem: String,
}

impl Upstream {
    /// `answer` makes an answer of a request's head.
    pub(super) async fn plain(answer: fn(&str) -> String) -> Self {
        Self::start(None, answer).await
    }

    pub(super) async fn tls(answer: fn(&str) -> String) -> Self {
        Self::start(Some(Authority::generate().unwrap()), answer).await
    }

    async fn start(authority: Option<Authority>, answer: fn(&str) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ca_pem = authority.as_ref().map_or(String::new(), |authority| authority.pem().to_owned());
        let config = authority.map(|authority| authority.server(&Host::parse(ALLOWED).unwrap()).unwrap());
        let got = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&got);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, sink) = (config.clone(), Arc::clone(&sink));
                tokio::spawn(async move {
                    match config {
                        None => converse(stream, &sink, answer).await,
                        Some(config) => {
                            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                                converse(stream, &sink, answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, got, ca_pem }
    }

    pub(super) fn got(&self) -> String {
        String::from_utf8_lossy(&self.got.lock().unwrap()).into_owned()
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    sink: &Mutex<Vec<u8>>,
    answer: fn(&str) -> String,
) {
    let (mut head, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    let mut has_answered = false;
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        sink.lock().unwrap().extend_from_slice(&buffer[..count]);
        head.extend_from_slice(&buffer[..count]);
        if !has_answered && head.windows(4).any(|four| four == b"\r\n\r\n") {
            has_answered = true;
            let answer = answer(&String::from_utf8_lossy(&head));
            if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                break;
            }
        }
    }
}

/// An answer with a body of known length.
pub(super) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub(super) fn fine(_: &str) -> String {
    ok("fine")
}

/// One egress, and what surrounds it.
pub(super) struct World {
    pub(super) egress: Egress,
    pub(super) journal: Arc<Journal>,
    pub(super) resolver: Arc<FakeResolver>,
    pub(super) proxy: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) tls: SocketAddr,
    pub(super) dns: SocketAddr,
}

impl World {
    /// Every name leads to `upstream`, which the rules may dial although it is on loopback.
    pub(super) fn new(declared: Declared, upstream: &Upstream) -> Self {
        Self::resolving(declared, vec![upstream.address], &upstream.ca_pem)
    }

    pub(super) fn resolving(mut declared: Declared, answers: Vec<SocketAddr>, ca_pem: &str) -> Self {
        declared.private.push("127.0.0.1".to_owned());
        Self::exactly(&declared, answers, ca_pem)
    }

    pub(super) fn exactly(declared: &Declared, answers: Vec<SocketAddr>, ca_pem: &str) -> Self {
        let secret = Secret::new(SECRET.to_owned().into()).unwrap();
        let rules = Rules::check(declared, &BTreeMap::from([("api".to_owned(), secret)])).unwrap();
        let bind = |address| StdTcpListener::bind((address, 0)).unwrap();
        let [proxy, http, tls] =
            [bind(Ipv4Addr::LOCALHOST), bind(Ipv4Addr::UNSPECIFIED), bind(Ipv4Addr::UNSPECIFIED)];
        let dns = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        let at = |listener: &StdTcpListener| listener.local_addr().unwrap();
        let addresses = (at(&proxy), at(&http), at(&tls), dns.local_addr().unwrap());
        let listeners = Listeners {
            proxy: Some(proxy),
            http: Some(http),
            tls: Some(tls),
            dns_udp: Some(dns),
            dns_tcp: None,
        };
        let journal = Arc::new(Journal::default());
        let resolver = Arc::new(FakeResolver { answers, asked: Mutex::default() });
        let trust = match ca_pem {
            "" => Trust::of_pem(Authority::generate().unwrap().pem()).unwrap(),
            pem => Trust::of_pem(pem).unwrap(),
        };
        let outside = Outside { resolver: resolver.clone(), trust, watch: journal.clone() };
        let egress = serve(listeners, Arc::new(rules), outside).unwrap();
        let (proxy, http, tls, dns) = addresses;
        Self { egress, journal, resolver, proxy, http, tls, dns }
    }

    /// Says something to the proxy, and gives back all that it answers.
    pub(super) async fn says(&self, text: &str) -> String {
        say(TcpStream::connect(self.proxy).await.unwrap(), text.as_bytes()).await
    }

    /// `CONNECT`, and the stream where it was agreed to; otherwise the answer.
    pub(super) async fn connect(&self, target: &str) -> Result<TcpStream, String> {
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        stream
            .write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => answer.push(byte),
                Err(_) => break,
            }
        }
        let answer = String::from_utf8(answer).unwrap();
        if answer.starts_with("HTTP/1.1 200 ") { Ok(stream) } else { Err(answer) }
    }

    /// A request within TLS after `CONNECT` to the allowed host; the answer, or nothing where TLS fails.
    pub(super) async fn asks(&self, ca_pem: &str, request: &str) -> String {
        let stream = self.connect(&format!("{ALLOWED}:443")).await.unwrap();
        match secure(stream, ALLOWED, ca_pem).await {
            Ok(stream) => say(stream, request.as_bytes()).await,
            Err(_) => String::new(),
        }
    }

    pub(super) async fn ask_name(&self, name: &str) -> IpAddr {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let question = crate::egress::dns::tests::question(name.as_bytes(), 1);
        socket.send_to(&question, self.dns).await.unwrap();
        let mut answer = [0; 512];
        let count = socket.recv(&mut answer).await.unwrap();
        let octets: [u8; 4] = answer[count - 4..count].try_into().unwrap();
        IpAddr::from(octets)
    }

    /// Stops the egress; verdict and reason of each decision, in order.
    pub(super) async fn ended(self) -> (Vec<(Verdict, Reason)>, Totals) {
        let totals = self.egress.stop().await;
        let decisions = self.journal.decisions.lock().unwrap();
        (decisions.iter().map(|decision| (decision.verdict, decision.reason)).collect(), totals)
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.resolver.asked.lock().unwrap().clone()
    }
}

pub(super) async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &[u8]) -> String {
    let _cut = stream.write_all(text).await;
    let _cut = stream.flush().await;
    let mut answer = Vec::new();
    let _cut = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub(super) async fn secure(
    stream: TcpStream,
    name: &str,
    ca_pem: &str,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let builder =
        rustls::ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

pub(super) fn allow(entries: &[&str]) -> Declared {
    let allow = entries.iter().map(|text| Entry::Text((*text).to_owned())).collect();
    Declared { allow, ..Declared::default() }
}

/// The allowed host, inspected, with a credential for `GET /v1`, and `POST /open` and another host without.
pub(super) fn bound() -> Declared {
    let rule = |to: &str, method: &str, path: &str, credential| {
        Entry::Rule(DeclaredRule {
            to: to.to_owned(),
            inspect: true,
            methods: if method.is_empty() { vec![] } else { vec![method.to_owned()] },
            paths: vec![path.to_owned()],
            credential,
            ..DeclaredRule::default()
        })
    };
    let credential = DeclaredCredential {
        secret: "api".to_owned(),
        header: "Authorization".to_owned(),
        format: "Bearer {}".to_owned(),
        placeholder: PLACEHOLDER.to_owned(),
    };
    Declared {
        allow: vec![
            rule(ALLOWED, "", "/v1", Some(credential)),
            rule(ALLOWED, "POST", "/open", None),
            Entry::Text(format!("http://{ALLOWED}")),
            Entry::Text("http://other.test".to_owned()),
        ],
        ..Declared::default()
    }
}
