//! A sandbox host and its gateways: who is let in, what a run looks like from the other machine, and what is left of it when one of
//! them goes away.
//!
//! The executable is its own jail, and other machines' programs too: it plays the part that its first argument names. All traffic
//! is on loopback, or in network namespaces that the tests make.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use ringfence_sandbox::remote::{HostSettings, Hosted, RemoteSettings, TlsTexts, serve};
use ringfence_sandbox::{
    Ended, InputFile, Isolation, Language, Outcome, Profile, Program, Refused, Sandbox, Stream, Unwatched,
    Watch, egress, strongest,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    ringfence_sandbox::enter_if_jail();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["play-host", folder, listen] => return play_host(Path::new(folder), listen),
        ["play-gateway", folder, address, source] => return play_gateway(Path::new(folder), address, source),
        ["play-services", ref addresses @ ..] => return play_services(addresses),
        ["play-reach", ref addresses @ ..] => return play_reach(addresses),
        _ => {}
    }
    let tests: &[(&str, fn())] = &[
        ("a_program_runs_on_a_host_as_it_would_here", a_program_runs_on_a_host_as_it_would_here),
        ("a_hosts_sandbox_holds_against_itself", a_hosts_sandbox_holds_against_itself),
        ("a_session_keeps_its_state_and_ends_with_its_connection", a_session_keeps_its_state),
        ("a_request_narrows_and_never_widens", a_request_narrows_and_never_widens),
        ("who_no_longer_wants_it_gets_its_outcome", who_no_longer_wants_it_gets_its_outcome),
        ("strangers_are_not_let_in", strangers_are_not_let_in),
        ("a_gateway_believes_its_own_host_alone", a_gateway_believes_its_own_host_alone),
        ("nothing_older_than_tls_1_3_is_spoken", nothing_older_than_tls_1_3_is_spoken),
        ("what_is_not_offered_is_refused", what_is_not_offered_is_refused),
        ("a_gateway_that_leaves_takes_its_run_with_it", a_gateway_that_leaves_takes_its_run_with_it),
        ("a_host_that_is_killed_is_a_refusal_at_once", a_host_that_is_killed_is_a_refusal_at_once),
        ("a_host_that_stops_ends_what_runs", a_host_that_stops_ends_what_runs),
        ("who_says_nothing_or_nonsense_holds_nobody", who_says_nothing_or_nonsense_holds_nobody),
        ("connections_are_counted", connections_are_counted),
        ("a_host_reaches_nothing_beyond_its_answers", a_host_reaches_nothing_beyond_its_answers),
    ];
    let can_make_networks = rustix::process::getuid().is_root()
        && ["ip", "nft", "nsenter"].iter().all(|tool| Command::new(tool).arg("-V").output().is_ok());
    let trials = tests.iter().map(|(name, test)| {
        let test = *test;
        let is_left_out = *name == "a_host_reaches_nothing_beyond_its_answers" && !can_make_networks;
        if is_left_out {
            eprintln!("LEFT OUT: `{name}` needs root, and `ip` (iproute2), `nft` (nftables) and `nsenter`");
        }
        Trial::test(*name, move || {
            std::panic::catch_unwind(test).map_err(|cause| Failed::from(text_of(&*cause)))
        })
        .with_ignored_flag(is_left_out)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn text_of(cause: &(dyn std::any::Any + Send)) -> String {
    cause
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| cause.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_default()
}

// Certificates.

/// A certificate and its key, in PEM.
#[derive(Clone)]
struct Pair {
    certificate: String,
    key: String,
}

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn signs(&self, name: &str, purpose: ExtendedKeyUsagePurpose, last_year: i32) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        Pair { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn host(&self) -> Pair {
        self.signs("sandbox-host", ExtendedKeyUsagePurpose::ServerAuth, 2100)
    }

    fn gateway(&self) -> Pair {
        self.signs("gateway", ExtendedKeyUsagePurpose::ClientAuth, 2100)
    }

    fn texts<'a>(&'a self, pair: &'a Pair) -> TlsTexts<'a> {
        TlsTexts { ca: &self.certificate, certificate: &pair.certificate, key: &pair.key }
    }
}

// A host in this process.

struct Host {
    address: SocketAddr,
    authority: Authority,
    stop: CancellationToken,
    serving: Option<std::thread::JoinHandle<()>>,
}

fn profile(language: Language) -> Profile {
    let mut profile = strongest(language).unwrap();
    profile.limits.wall = Duration::from_secs(20);
    profile.limits.memory_bytes = 256 << 20;
    profile
}

fn profiles() -> BTreeMap<String, Hosted> {
    let hosted = |language| Hosted { sandbox: Sandbox::new(profile(language)), language, parallel_max: 4 };
    [Language::Python, Language::Bash].map(|language| (language.as_str().to_owned(), hosted(language))).into()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

impl Host {
    fn new() -> Self {
        Self::with(Authority::host, &[], 64)
    }

    fn with(pair: impl Fn(&Authority) -> Pair, clients: &[&str], connections_max: usize) -> Self {
        let authority = Authority::new();
        let clients: Vec<String> = clients.iter().map(ToString::to_string).collect();
        let settings =
            HostSettings::new(authority.texts(&pair(&authority)), &clients, connections_max).unwrap();
        let stop = CancellationToken::new();
        let (to_test, from_host) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        let serving = std::thread::spawn(move || {
            runtime().block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                to_test.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, settings, profiles(), stopped).await;
            });
        });
        Self { address: from_host.recv().unwrap(), authority, stop, serving: Some(serving) }
    }

    /// What a gateway with this certificate has to work with.
    fn seen_by(&self, pair: &Pair, language: Language) -> Sandbox {
        remote(self.address, "sandbox-host", language.as_str(), self.authority.texts(pair), language)
    }

    fn sandbox(&self, language: Language) -> Sandbox {
        self.seen_by(&self.authority.gateway(), language)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.serving.take().unwrap().join();
        assert!(std::thread::panicking() || ended.is_ok());
    }
}

fn remote(
    address: SocketAddr,
    server_name: &str,
    name: &str,
    texts: TlsTexts<'_>,
    language: Language,
) -> Sandbox {
    let mut profile = Profile::new(language);
    let settings = RemoteSettings::new(address.to_string(), server_name, name, texts).unwrap();
    profile.isolation = Isolation::Remote(settings);
    Sandbox::new(profile)
}

fn play(sandbox: &Sandbox, program: Program) -> Result<Outcome, Refused> {
    runtime().block_on(sandbox.run(program, Arc::new(Unwatched), CancellationToken::new()))
}

fn refused(sandbox: &Sandbox) -> Refused {
    play(sandbox, Program::new("print('ran')")).expect_err("this has to be refused")
}

// What a run looks like.

#[derive(Default)]
struct Heard(Mutex<Vec<(Stream, Vec<u8>)>>);

#[async_trait::async_trait]
impl egress::Watch for Heard {
    async fn decided(&self, _: &egress::Decision) -> Result<(), egress::Unrecorded> {
        Err(egress::Unrecorded)
    }
}

impl Watch for Heard {
    fn wrote(&self, stream: Stream, bytes: &[u8]) {
        self.0.lock().unwrap().push((stream, bytes.to_vec()));
    }
}

fn a_program_runs_on_a_host_as_it_would_here() {
    let host = Host::new();
    let source = "
import sys
open('/artifacts/out.txt', 'w').write(open('/work/in/data.bin').read()[:5])
print('hello', flush=True)
print('oh', file=sys.stderr, flush=True)
sys.exit(3)
";
    let files = vec![InputFile { name: "data.bin".into(), bytes: b"12345".repeat(100_000) }];
    let heard = Arc::new(Heard::default());
    let program = Program { files, ..Program::new(source) };
    let running = host.sandbox(Language::Python);
    let outcome = runtime().block_on(running.run(program, heard.clone(), CancellationToken::new())).unwrap();
    assert_eq!(outcome.ended, Ended::Exit(3));
    assert_eq!((outcome.stdout.text.as_str(), outcome.stderr.text.as_str()), ("hello\n", "oh\n"));
    let artifact = &outcome.artifacts[0];
    assert_eq!((artifact.name.as_str(), &artifact.bytes[..]), ("out.txt", &b"12345"[..]));
    assert_eq!(outcome.receipt.backend, "remote/process");
    assert!(outcome.receipt.nothing_left && outcome.receipt.layers.len() == 10, "{:?}", outcome.receipt);
    // In as many parts as the pipe gave.
    let heard = |stream| {
        let parts = heard.0.lock().unwrap();
        parts
            .iter()
            .filter(|(from, _)| *from == stream)
            .flat_map(|(_, part)| part.clone())
            .collect::<Vec<u8>>()
    };
    assert_eq!((heard(Stream::Stdout), heard(Stream::Stderr)), (b"hello\n".to_vec(), b"oh\n".to_vec()));
    let value = play(&running, Program::new("6*7")).unwrap().value;
    assert_eq!(value.as_deref(), Some("42"));
}

fn a_hosts_sandbox_holds_against_itself() {
    let host = Host::new();
    let sandbox = host.sandbox(Language::Python);
    let probes = runtime().block_on(sandbox.self_attack()).unwrap();
    assert!(probes.len() > 5 && probes.iter().all(|probe| probe.held), "{probes:?}");
    runtime().block_on(sandbox.warm()).unwrap();
}

fn a_session_keeps_its_state() {
    let host = Host::new();
    runtime().block_on(async {
        let next = |source: &str| (Program::new(source), Arc::new(Unwatched), CancellationToken::new());
        let mut session = host.sandbox(Language::Python).session().await.unwrap();
        for (source, value) in [("x = 40", None), ("x + 2", Some("42"))] {
            let (program, watch, cancelled) = next(source);
            let outcome = session.run(program, watch, cancelled).await.unwrap();
            assert_eq!(outcome.value.as_deref(), value, "{outcome:?}");
        }
        assert!(!session.is_over());
        let (program, watch, cancelled) = next("import time; time.sleep(9)");
        let program = Program { wall_max: Some(Duration::from_millis(300)), ..program };
        assert_eq!(session.run(program, watch, cancelled).await.unwrap().ended, Ended::Timeout);
        assert!(session.is_over());
        let refused = host.sandbox(Language::Bash).session().await.err().unwrap();
        assert_eq!(refused.layer, "session", "{refused}");
    });
}

fn a_request_narrows_and_never_widens() {
    let host = Host::new();
    let sandbox = host.sandbox(Language::Bash);
    let began = Instant::now();
    let narrow = Program { wall_max: Some(Duration::from_millis(500)), ..Program::new("sleep 15") };
    assert_eq!(play(&sandbox, narrow).unwrap().ended, Ended::Timeout);
    assert!(began.elapsed() < Duration::from_secs(10));
    let narrow =
        Program { output_bytes_max: Some(1000), ..Program::new("head -c 50000 /dev/zero | tr '\\0' x") };
    let outcome = play(&sandbox, narrow).unwrap();
    assert!(outcome.stdout.cut && outcome.stdout.text.len() < 1200 && outcome.stdout.bytes_total == 50_000);
    // The host's own limit stands, whatever is asked for.
    let wide = Program {
        output_bytes_max: Some(u64::MAX),
        ..Program::new("head -c 3000000 /dev/zero | tr '\\0' x")
    };
    let outcome = play(&sandbox, wide).unwrap();
    assert!(outcome.stdout.cut && outcome.stdout.text.len() < 1_100_000);
}

fn who_no_longer_wants_it_gets_its_outcome() {
    let host = Host::new();
    let (sandbox, cancelled) = (host.sandbox(Language::Bash), CancellationToken::new());
    let (marker, program) = sleeping();
    let stop = cancelled.clone();
    std::thread::spawn(move || {
        until("it sleeps", || is_running(&marker));
        stop.cancel();
    });
    let outcome = runtime().block_on(sandbox.run(program, Arc::new(Unwatched), cancelled)).unwrap();
    assert_eq!(outcome.ended, Ended::Cancelled);
    assert!(outcome.receipt.nothing_left);
}

// Who is let in.

fn strangers_are_not_let_in() {
    let host = Host::with(Authority::host, &["gateway", "other-gateway"], 64);
    let ours = &host.authority;
    assert!(play(&host.sandbox(Language::Bash), Program::new("true")).is_ok(), "the control");
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    for (who, pair) in [
        ("an authority of somebody else", Authority::new().gateway()),
        ("a certificate that has expired", ours.signs("gateway", client.clone(), 2021)),
        ("a name that is not let in", ours.signs("somebody", client, 2100)),
        ("a certificate of a host", ours.signs("gateway", ExtendedKeyUsagePurpose::ServerAuth, 2100)),
    ] {
        let refused = refused(&host.seen_by(&pair, Language::Bash));
        assert_eq!(refused.layer, "host", "{who}: {refused}");
        assert!(refused.reason.contains("nothing ran"), "{who}: {refused}");
    }
    let raw = Raw::new(&host, None, &rustls::version::TLS13);
    assert!(raw.is_err_and(|why| why.contains("CertificateRequired")), "no certificate at all");
}

fn a_gateway_believes_its_own_host_alone() {
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    let host = Host::new();
    let gateway = host.authority.gateway();
    let to = |name, texts| remote(host.address, name, "bash", texts, Language::Bash);
    assert!(play(&to("sandbox-host", host.authority.texts(&gateway)), Program::new("true")).is_ok());
    let why = refused(&to("another-host", host.authority.texts(&gateway))).reason;
    assert!(why.contains("not valid for name"), "{why}");
    let other = Authority::new();
    let why =
        refused(&to("sandbox-host", TlsTexts { ca: &other.certificate, ..host.authority.texts(&gateway) }));
    assert!(why.reason.contains("invalid peer certificate"), "{why}");
    let expired = Host::with(|authority| authority.signs("sandbox-host", server.clone(), 2021), &[], 64);
    let why = refused(&expired.sandbox(Language::Bash)).reason;
    assert!(why.contains("expired"), "{why}");
    let of_a_gateway = Host::with(
        |authority| authority.signs("sandbox-host", ExtendedKeyUsagePurpose::ClientAuth, 2100),
        &[],
        64,
    );
    let why = refused(&of_a_gateway.sandbox(Language::Bash)).reason;
    assert!(why.contains("certificate"), "{why}");
}

fn nothing_older_than_tls_1_3_is_spoken() {
    let host = Host::new();
    let gateway = host.authority.gateway();
    let mut new = Raw::new(&host, Some(&gateway), &rustls::version::TLS13).unwrap();
    assert_eq!(
        new.ask(r#"{"profile":"bash","purpose":"look"}"#),
        Some((b'R', r#"{"language":"bash"}"#.into()))
    );
    let old = Raw::new(&host, Some(&gateway), &rustls::version::TLS12);
    assert!(old.is_err_and(|why| why.contains("ProtocolVersion")));
}

fn what_is_not_offered_is_refused() {
    let host = Host::new();
    let gateway = host.authority.gateway();
    let named =
        |name| remote(host.address, "sandbox-host", name, host.authority.texts(&gateway), Language::Python);
    for name in ["node", "", "../python", "python\0", "PYTHON"] {
        let refused = refused(&named(name));
        assert_eq!(refused.layer, "profile");
        assert!(refused.reason.contains("it offers no profile of this name"), "{refused}");
    }
    let refused = refused(&named("bash"));
    assert!(refused.reason.contains("is for bash, not for python"), "{refused}");
}

// Who goes away.

/// A program that sleeps, and the word by which the machine that it runs on knows it.
fn sleeping() -> (String, Program) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let marker = format!("15.{:07}{next:03}", std::process::id());
    let program = Program::new(format!("sleep {marker} & sleep {marker}"));
    (marker, program)
}

/// Whether any process of this machine has the word on its command line, sandboxes' included.
fn is_running(marker: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        words.starts_with(b"sleep\0") && String::from_utf8_lossy(&words).contains(marker)
    })
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "this never came: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn a_gateway_that_leaves_takes_its_run_with_it() {
    let host = Host::new();
    let (sandbox, (marker, program)) = (host.sandbox(Language::Bash), sleeping());
    let runtime = runtime();
    let running = runtime
        .spawn(async move { sandbox.run(program, Arc::new(Unwatched), CancellationToken::new()).await });
    until("it sleeps", || is_running(&marker));
    let began = Instant::now();
    running.abort();
    until("it sleeps no more", || !is_running(&marker));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // And the host goes on.
    assert!(play(&host.sandbox(Language::Bash), Program::new("true")).is_ok());
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped_already = self.0.wait();
    }
}

/// A host in a process of its own.
struct Elsewhere {
    child: Killed,
    address: SocketAddr,
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Elsewhere {
    fn start(in_network: Option<&str>, listen: &str) -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        for (name, pair) in [("host", authority.host()), ("gateway", authority.gateway())] {
            std::fs::write(folder.path().join(format!("{name}.pem")), pair.certificate).unwrap();
            std::fs::write(folder.path().join(format!("{name}.key")), pair.key).unwrap();
        }
        std::fs::write(folder.path().join("ca.pem"), &authority.certificate).unwrap();
        let mut command = part(in_network, &["play-host", folder.path().to_str().unwrap(), listen]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let address = first_line(&mut child).parse().unwrap();
        Self { child: Killed(child), address, folder, authority }
    }

    fn sandbox(&self, language: Language) -> Sandbox {
        let gateway = self.authority.gateway();
        remote(self.address, "sandbox-host", language.as_str(), self.authority.texts(&gateway), language)
    }
}

/// This executable in another part, perhaps on another network.
fn part(in_network: Option<&str>, arguments: &[&str]) -> Command {
    let own = std::env::current_exe().unwrap();
    let mut command = match in_network {
        Some(network) => {
            // Not `ip netns exec`, which mounts a `/sys` of its own over the cgroups.
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{network}")).arg(own);
            command
        }
        None => Command::new(own),
    };
    command.args(arguments).stdin(Stdio::null());
    command
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn a_host_that_is_killed_is_a_refusal_at_once() {
    let mut host = Elsewhere::start(None, "127.0.0.1:0");
    let (sandbox, (marker, program)) = (host.sandbox(Language::Bash), sleeping());
    let running = std::thread::spawn(move || play(&sandbox, program));
    until("it sleeps", || is_running(&marker));
    let began = Instant::now();
    host.child.0.kill().unwrap();
    let refused = running.join().unwrap().unwrap_err();
    assert_eq!(refused.layer, "lost", "{refused}");
    assert!(refused.reason.contains("is not run again"), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    until("its sandbox is gone too", || !is_running(&marker));
    let refused = self::refused(&host.sandbox(Language::Bash));
    assert_eq!(refused.layer, "host", "{refused}");
}

fn a_host_that_stops_ends_what_runs() {
    let host = Host::new();
    let (sandbox, (marker, program)) = (host.sandbox(Language::Bash), sleeping());
    let running = std::thread::spawn(move || play(&sandbox, program));
    until("it sleeps", || is_running(&marker));
    let began = Instant::now();
    drop(host);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(!is_running(&marker));
    let refused = running.join().unwrap().unwrap_err();
    assert!(refused.layer == "lost" && refused.reason.contains("the host was stopped"), "{refused}");
}

// Who does not keep to the protocol.

/// A connection as whoever writes its bytes by hand has it.
struct Raw(rustls::StreamOwned<rustls::ClientConnection, TcpStream>);

impl Raw {
    fn new(
        host: &Host,
        pair: Option<&Pair>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Result<Self, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(host.authority.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match pair {
            Some(pair) => {
                let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"ringfence-sandbox/1".to_vec()];
        let mut socket = TcpStream::connect(host.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("sandbox-host").unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(|error| error.to_string())?;
        }
        let mut raw = Self(rustls::StreamOwned::new(connection, socket));
        if pair.is_none() {
            // Whether the host is content shows with its first word.
            raw.0.read_exact(&mut [0]).map_err(|error| error.to_string())?;
        }
        Ok(raw)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
        self.0.flush().unwrap();
    }

    fn ask(&mut self, json: &str) -> Option<(u8, String)> {
        self.write(&[b"O", &u32::try_from(json.len()).unwrap().to_be_bytes()[..], json.as_bytes()].concat());
        self.answer()
    }

    /// The next frame that says something; none when the connection is closed.
    fn answer(&mut self) -> Option<(u8, String)> {
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head).ok()?;
            let mut payload = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize];
            self.0.read_exact(&mut payload).ok()?;
            if head[0] != b'A' {
                return Some((head[0], String::from_utf8(payload).unwrap()));
            }
        }
    }
}

fn who_says_nothing_or_nonsense_holds_nobody() {
    let host = Host::new();
    let gateway = host.authority.gateway();
    let raw = || Raw::new(&host, Some(&gateway), &rustls::version::TLS13).unwrap();
    let began = Instant::now();
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"O\xff\xff\xff\xff", b"O\0\0\0\x02{}", b"P\0\0\0\x02{}"]
    {
        let mut raw = raw();
        raw.write(nonsense);
        assert_eq!(raw.answer(), None);
    }
    assert!(began.elapsed() < Duration::from_secs(4), "nonsense is over at once");
    // A stranger that does not even begin, one that begins and goes on byte by byte, and one that is known and says nothing.
    let mut silent = TcpStream::connect(host.address).unwrap();
    let mut known = raw();
    let mut slow = raw();
    let began = Instant::now();
    slow.write(b"O\0\0\0\x20");
    assert_eq!(known.answer(), None);
    assert_eq!(slow.answer(), None);
    assert_eq!(silent.read(&mut [0; 16]).unwrap_or(0), 0);
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert!(play(&host.sandbox(Language::Bash), Program::new("true")).is_ok());
}

fn connections_are_counted() {
    let host = Host::with(Authority::host, &[], 1);
    runtime().block_on(async {
        let held = host.sandbox(Language::Python).session().await.unwrap();
        let second = host.sandbox(Language::Bash).warm().await.unwrap_err();
        assert!(second.reason.contains("as many connections as it may"), "{second}");
        drop(held);
    });
    until("the place is free again", || runtime().block_on(host.sandbox(Language::Bash).warm()).is_ok());
}

// Two networks.

fn play_host(folder: &Path, listen: &str) -> ExitCode {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (ca, certificate, key) = (read("ca.pem"), read("host.pem"), read("host.key"));
    let texts = TlsTexts { ca: &ca, certificate: &certificate, key: &key };
    let settings = HostSettings::new(texts, &["gateway".to_owned()], 16).unwrap();
    runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        serve(listener, settings, profiles(), CancellationToken::new()).await;
    });
    ExitCode::SUCCESS
}

fn play_gateway(folder: &Path, address: &str, source: &str) -> ExitCode {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (ca, certificate, key) = (read("ca.pem"), read("gateway.pem"), read("gateway.key"));
    let texts = TlsTexts { ca: &ca, certificate: &certificate, key: &key };
    let sandbox = remote(address.parse().unwrap(), "sandbox-host", "bash", texts, Language::Bash);
    match play(&sandbox, Program::new(source)) {
        Ok(outcome) => println!("{} {}", outcome.receipt.backend, outcome.stdout.text.trim()),
        Err(refused) => println!("{refused}"),
    }
    ExitCode::SUCCESS
}

/// Databases and the like: whoever reaches one is greeted.
fn play_services(addresses: &[&str]) -> ExitCode {
    let listeners: Vec<TcpListener> =
        addresses.iter().map(|address| TcpListener::bind(address).unwrap()).collect();
    println!("they listen");
    let serving = listeners.into_iter().map(|listener| {
        std::thread::spawn(move || {
            listener.incoming().flatten().for_each(|mut one| drop(one.write_all(b"yes")));
        })
    });
    serving.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    ExitCode::SUCCESS
}

/// What can be reached from here, as one line of marks.
fn play_reach(addresses: &[&str]) -> ExitCode {
    let reached = addresses.iter().map(|address| {
        let greeting = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(1))
            .and_then(|mut one| one.read(&mut [0; 3]));
        if greeting.is_ok_and(|count| count == 3) { 'y' } else { 'n' }
    });
    println!("{}", reached.collect::<String>());
    ExitCode::SUCCESS
}

fn must(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The gateway's machine and the host's, with a cable between them. On the gateway's are a network of its own with a database, and
/// a metadata service.
struct Machines {
    gateway: String,
    host: String,
}

impl Machines {
    fn new() -> Self {
        let id = std::process::id();
        let machines = Self { gateway: format!("rf-gateway-{id}"), host: format!("rf-host-{id}") };
        let (g, h) = (&machines.gateway, &machines.host);
        must(&format!("ip netns add {g}"));
        must(&format!("ip netns add {h}"));
        must(&format!("ip -n {g} link add cable type veth peer name cable netns {h}"));
        for command in [
            "link set lo up",
            "addr add 10.77.0.1/30 dev cable",
            "link set cable up",
            "link add lan type veth peer name switch",
            "link set switch up",
            "addr add 10.78.0.1/24 dev lan",
            "addr add 169.254.169.254/32 dev lan",
            "link set lan up",
        ] {
            must(&format!("ip -n {g} {command}"));
        }
        for command in ["link set lo up", "addr add 10.77.0.2/30 dev cable", "link set cable up"] {
            must(&format!("ip -n {h} {command}"));
        }
        machines
    }

    /// What docs/sandbox-host.md says of both machines.
    fn fence(&self) {
        must(&format!("ip -n {} route del default", self.host));
        let rules = "table inet sandbox_host { chain input { type filter hook input priority filter; \
                     iifname \"cable\" ct state established,related accept; iifname \"cable\" drop; }; }";
        let mut nft = Command::new("nsenter")
            .args([&format!("--net=/run/netns/{}", self.gateway), "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success());
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for network in [&self.gateway, &self.host] {
            let _gone_already = Command::new("ip").args(["netns", "del", network]).status();
        }
    }
}

fn a_host_reaches_nothing_beyond_its_answers() {
    let machines = Machines::new();
    let (g, h) = (Some(machines.gateway.as_str()), Some(machines.host.as_str()));
    // The database, the metadata, and a door of the gateway on the cable itself.
    let services = ["10.78.0.1:5432", "169.254.169.254:80", "10.77.0.1:8788"];
    let mut serving = Killed(
        part(g, &[&["play-services"][..], &services].concat()).stdout(Stdio::piped()).spawn().unwrap(),
    );
    assert_eq!(first_line(&mut serving.0), "they listen");
    let host = Elsewhere::start(h, "10.77.0.2:7443");
    let (folder, address) = (host.folder.path().to_str().unwrap(), "10.77.0.2:7443");
    let heard = |command: &mut Command| {
        String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
    };
    let reach = |from| heard(&mut part(from, &[&["play-reach"][..], &services].concat()));
    let run = |source: &str| heard(&mut part(g, &["play-gateway", folder, address, source]));
    // The controls: without a fence, a host with a way out reaches all of it, and the gateway reaches the host.
    must(&format!("ip -n {} route add default via 10.77.0.1", machines.host));
    assert_eq!((reach(g).as_str(), reach(h).as_str()), ("yyy", "yyy"));
    assert_eq!(run("echo $((6 * 7))"), "remote/process 42");
    machines.fence();
    assert_eq!((reach(g).as_str(), reach(h).as_str()), ("yyy", "nnn"));
    assert_eq!(run("echo $((6 * 7))"), "remote/process 42");
    // A way out that the host gives itself does not help it: the gateway's machine does not listen.
    must(&format!("ip -n {} route add default via 10.77.0.1", machines.host));
    assert_eq!(reach(h), "nnn");
    // The sandbox has not even the cable.
    let inside = "for a in 10.77.0.1/8788 10.78.0.1/5432 169.254.169.254/80 10.77.0.2/7443; do \
                  (exec 3<>/dev/tcp/$a) 2>/dev/null && echo reached $a; done; echo tried";
    assert_eq!(run(inside), "remote/process tried");
    // The cable is cut: both notice within seconds.
    let (marker, program) = sleeping();
    let running = part(g, &["play-gateway", folder, address, &program.source]).stdout(Stdio::piped()).spawn();
    let running = running.unwrap();
    until("it sleeps", || is_running(&marker));
    let began = Instant::now();
    must(&format!("ip -n {} link set cable down", machines.gateway));
    until("it sleeps no more", || !is_running(&marker));
    let said = String::from_utf8(running.wait_with_output().unwrap().stdout).unwrap();
    assert!(said.contains("`lost`") && said.contains("nothing was heard for 5 seconds"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
