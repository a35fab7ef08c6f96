//! Servers outside, on loopback: lenient ones, that read whatever they get in the way that harms most, and say so with a token.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// The names that the certificate of every server here is good for.
const NAMES: [&str; 6] = [
    "api.allowed.test",
    "tunnel.allowed.test",
    "storage.allowed.test",
    "other.test",
    "evil.test",
    "bucket-b.storage.allowed.test",
];
/// What is below these is not for whoever may see the rest.
const HIDDEN: [&str; 3] = ["admin", "bucket-b", "bucket-ab"];
/// How much of what came is kept, in bytes.
const KEPT: usize = 4 << 20;

/// Who vouches for the servers.
pub(super) struct Certificates {
    pub(super) pem: String,
    config: Arc<ServerConfig>,
}

impl Certificates {
    pub(super) fn make() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Authority of the attack list");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().unwrap();
        let names = CertificateParams::new(NAMES.map(String::from)).unwrap();
        let certificate = names.signed_by(&own, &issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        Self { pem, config: Arc::new(config) }
    }
}

/// A server, and all that it got.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    got: Arc<Mutex<Got>>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Got {
    bytes: Vec<u8>,
    total: usize,
    connections: usize,
}

/// How a server answers.
#[derive(Clone)]
pub(super) struct Answers {
    /// What every token begins with.
    pub(super) prefix: String,
    /// Whether nothing may reach it: its every answer is a token.
    pub(super) is_evil: bool,
}

impl Upstream {
    pub(super) async fn start(certificates: &Certificates, answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Got::default()));
        let (config, sink) = (certificates.config.clone(), got.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut conversations = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sink.lock().unwrap().connections += 1;
                let (config, sink, answers) = (config.clone(), sink.clone(), answers.clone());
                conversations.spawn(async move {
                    let mut first = [0];
                    let is_tls = matches!(stream.peek(&mut first).await, Ok(1)) && first == [0x16];
                    if !is_tls {
                        converse(stream, &sink, &answers).await;
                    } else if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                        converse(stream, &sink, &answers).await;
                    }
                });
                while conversations.try_join_next().is_some() {}
            }
        });
        Self { address, got, _serving: serving }
    }

    /// What came, within TLS where that was spoken.
    pub(super) fn got(&self) -> String {
        String::from_utf8_lossy(&self.got.lock().unwrap().bytes).into_owned()
    }

    /// How many bytes came, kept or not.
    pub(super) fn total(&self) -> usize {
        self.got.lock().unwrap().total
    }

    pub(super) fn connections(&self) -> usize {
        self.got.lock().unwrap().connections
    }
}

/// One request after the other.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, sink: &Mutex<Got>, answers: &Answers) {
    let mut reader = Reader { stream, sink, held: Vec::new() };
    while let Some(head) = reader.head().await {
        if reader.pass_body(&head).await.is_none() || reader.answer(&answers.to(&head)).await.is_none() {
            return;
        }
    }
}

struct Reader<'s, S> {
    stream: S,
    sink: &'s Mutex<Got>,
    held: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<'_, S> {
    async fn more(&mut self) -> Option<()> {
        let mut buffer = vec![0; 64 << 10];
        let Ok(count @ 1..) = self.stream.read(&mut buffer).await else { return None };
        let mut got = self.sink.lock().unwrap();
        got.total += count;
        let room = KEPT.saturating_sub(got.bytes.len()).min(count);
        got.bytes.extend_from_slice(&buffer[..room]);
        self.held.extend_from_slice(&buffer[..count]);
        Some(())
    }

    /// The next request's head, or a line that is none.
    async fn head(&mut self) -> Option<String> {
        loop {
            let text = String::from_utf8_lossy(&self.held);
            let is_http = text.lines().next().is_none_or(|line| line.contains(" HTTP/"));
            let end = if is_http { text.find("\r\n\r\n").map(|at| at + 4) } else { text.find('\n') };
            if let Some(end) = end {
                let head = text[..end].to_owned();
                self.held.drain(..end.min(self.held.len()));
                return Some(head);
            }
            self.more().await?;
        }
    }

    async fn pass_body(&mut self, head: &str) -> Option<()> {
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
        let mut left: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        while self.held.len() < left {
            left -= self.held.len();
            self.held.clear();
            self.more().await?;
        }
        self.held.drain(..left);
        while length.is_none() && lower.contains("transfer-encoding: chunked") {
            if let Some(end) = self.held.windows(5).position(|five| five == b"0\r\n\r\n") {
                self.held.drain(..end + 5);
                break;
            }
            self.more().await?;
        }
        Some(())
    }

    async fn answer(&mut self, text: &str) -> Option<()> {
        self.stream.write_all(text.as_bytes()).await.ok()?;
        self.stream.flush().await.ok()
    }
}

impl Answers {
    fn to(&self, head: &str) -> String {
        let body = match self.harm(head) {
            Some(name) => format!("{}-host-{name}", self.prefix),
            None => "fine".to_owned(),
        };
        let echoed = head.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap_or_default();
        let body = if head.contains("/echo") { format!("{body} {echoed}") } else { body };
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    /// What this server believes that it was asked for and should not have been, read as loosely as any server does.
    fn harm(&self, head: &str) -> Option<&'static str> {
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(':'));
            lines.rev().find(|line| line.0.eq_ignore_ascii_case(name)).map(|line| line.1.trim())
        };
        if self.is_evil {
            return Some("evil");
        }
        let Some(host) = header("host") else { return Some("raw") };
        if host.contains("evil") || host.contains("bucket-b") {
            return Some("fronted");
        }
        let words: Vec<&str> = head.lines().next().unwrap_or_default().split(' ').collect();
        let path = header("x-original-url").unwrap_or_else(|| words.get(1).copied().unwrap_or_default());
        let path =
            path.split_once("://").map_or(path, |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
        let path = path.split('?').next().unwrap_or_default();
        let decode = |path: &str| {
            let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
            decoded.replace('\\', "/")
        };
        let mut segments: Vec<String> = Vec::new();
        for segment in decode(&decode(path)).split('/') {
            match segment.split(';').next().unwrap_or_default() {
                "" | "." => {}
                ".." => drop(segments.pop()),
                segment => segments.push(segment.to_owned()),
            }
        }
        let method = header("x-http-method-override").or(words.first().copied());
        let is_copy = method == Some("PUT") && header("x-amz-copy-source").is_some();
        if is_copy || segments.first().is_some_and(|first| HIDDEN.contains(&first.as_str())) {
            return Some("other-path");
        }
        (method == Some("DELETE") || header("upgrade").is_some()).then_some("other-method")
    }
}
