//! The gVisor backend, by the same promises as the built-in one. Where a promise needs a control, the built-in backend without
//! its walls is that: the same attack works there.
//!
//! Ignored, and loudly so, where there is no `runsc`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests"
)]

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use ringfence_sandbox::{
    Captured, Ended, GvisorSettings, InputFile, Isolation, Language, Layer, Outcome, Profile, Program,
    Refused, Resources, Sandbox, Stream, Unwatched, Watch, egress, run, strongest,
};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    ringfence_sandbox::enter_if_jail();
    if std::env::args().nth(1).is_some_and(|argument| argument == GATEWAY) {
        play(&python(), "while True: pass");
        return ExitCode::FAILURE;
    }
    let tests: &[(&str, fn())] = &[
        ("a_program_runs_and_its_receipt_says_on_what", a_program_runs_and_its_receipt_says_on_what),
        (
            "a_last_expression_has_a_value_and_an_error_a_trace",
            a_last_expression_has_a_value_and_an_error_a_trace,
        ),
        ("bash_runs_too_and_sees_a_small_world", bash_runs_too_and_sees_a_small_world),
        ("files_go_in_and_artifacts_come_out", files_go_in_and_artifacts_come_out),
        ("artifacts_are_counted_and_capped", artifacts_are_counted_and_capped),
        ("artifacts_come_out_even_after_the_time_is_up", artifacts_come_out_even_after_the_time_is_up),
        ("a_session_keeps_its_state", a_session_keeps_its_state),
        ("output_comes_while_the_program_runs", output_comes_while_the_program_runs),
        ("a_folder_is_a_root_too", a_folder_is_a_root_too),
        ("the_hosts_files_and_processes_are_not_there", the_hosts_files_and_processes_are_not_there),
        ("the_hosts_sockets_and_locks_are_not_reached", the_hosts_sockets_and_locks_are_not_reached),
        ("the_network_is_not_there", the_network_is_not_there),
        ("there_are_no_privileges", there_are_no_privileges),
        ("the_sandbox_holds_against_itself", the_sandbox_holds_against_itself),
        ("a_fork_bomb_is_held", a_fork_bomb_is_held),
        ("a_memory_bomb_is_held", a_memory_bomb_is_held),
        ("a_full_disk_is_the_sandboxs_own", a_full_disk_is_the_sandboxs_own),
        ("time_is_up_even_for_a_grandchild", time_is_up_even_for_a_grandchild),
        ("too_much_output_ends_the_program", too_much_output_ends_the_program),
        ("long_output_keeps_its_head_and_tail", long_output_keeps_its_head_and_tail),
        ("who_no_longer_wants_it_stops_it", who_no_longer_wants_it_stops_it),
        ("who_drops_it_destroys_it", who_drops_it_destroys_it),
        ("a_gateway_that_dies_takes_its_sandboxes_along", a_gateway_that_dies_takes_its_sandboxes_along),
        ("a_runsc_that_does_not_start_refuses_the_run", a_runsc_that_does_not_start_refuses_the_run),
        ("nothing_is_left_after_many_runs", nothing_is_left_after_many_runs),
    ];
    let is_there = GvisorSettings::default().runtime.is_file();
    if !is_there {
        eprintln!(
            "\nSKIPPED, and so neither passed nor failed: gVisor; there is no `runsc` (Debian: `apt-get install runsc`)\n"
        );
    }
    let is_root = rustix::process::getuid().is_root();
    let trials = tests.iter().map(|(name, test)| {
        let test = *test;
        // It has to put something below the host's `/usr` for a moment.
        let needs_root = *name == "the_hosts_sockets_and_locks_are_not_reached" && !is_root;
        Trial::test(*name, move || {
            std::panic::catch_unwind(test).map_err(|cause| Failed::from(text_of(&*cause)))
        })
        .with_ignored_flag(!is_there || needs_root)
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

fn gvisor(language: Language) -> Profile {
    let mut profile = strongest(language).unwrap();
    profile.isolation = Isolation::Gvisor(GvisorSettings::default());
    profile.limits.wall = Duration::from_secs(20);
    profile.limits.memory_bytes = 256 << 20;
    profile.limits.processes = 32;
    profile
}

fn python() -> Profile {
    gvisor(Language::Python)
}

/// The built-in backend with limits and little else: what an attack is shown to work on.
fn control() -> Profile {
    let mut profile = strongest(Language::Python).unwrap();
    profile.limits.processes = 32;
    let kept = [Layer::UserNamespace, Layer::PidNamespace, Layer::OtherNamespaces, Layer::Limits];
    let off: Vec<Layer> = Layer::ALL.into_iter().filter(|layer| !kept.contains(layer)).collect();
    profile.dangerously_without(&off)
}

fn in_runtime<T>(doing: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(doing)
}

fn try_run(profile: &Profile, program: Program) -> Result<Outcome, Refused> {
    in_runtime(run(profile, program, CancellationToken::new()))
}

fn play(profile: &Profile, source: &str) -> Outcome {
    try_run(profile, Program::new(source)).unwrap()
}

/// What a program prints that must end well.
fn printed(profile: &Profile, source: &str) -> String {
    let outcome = play(profile, source);
    assert_eq!(outcome.ended, Ended::Exit(0), "{source}\n{}\n{}", outcome.stdout.text, outcome.stderr.text);
    assert!(outcome.receipt.nothing_left);
    outcome.stdout.text.trim_end().to_owned()
}

fn a_program_runs_and_its_receipt_says_on_what() {
    let outcome = play(
        &python(),
        "import os, sys\nprint('hello', os.getuid(), os.getcwd(), os.uname().nodename)\nprint('oh', file=sys.stderr)\nsys.exit(3)",
    );
    assert_eq!(outcome.ended, Ended::Exit(3));
    assert_eq!(
        (outcome.stdout.text.as_str(), outcome.stderr.text.as_str()),
        ("hello 1000 /work sandbox\n", "oh\n")
    );
    let receipt = outcome.receipt;
    assert_eq!((receipt.backend.as_str(), receipt.platform.as_str()), ("gvisor", "ptrace"));
    assert!(receipt.layers.iter().any(|layer| layer == "gvisor_sentry"), "{receipt:?}");
    assert!(!receipt.layers.iter().any(|layer| layer == "landlock"), "{receipt:?}");
    assert!(receipt.nothing_left && receipt.landlock_abi == 0 && receipt.host_uid != 0, "{receipt:?}");
    assert!(receipt.used.memory_peak_bytes > 0 && receipt.used.wall_us > 0, "{receipt:?}");
    assert_eq!(receipt.filter.len(), 64);
}

fn a_last_expression_has_a_value_and_an_error_a_trace() {
    let process = strongest(Language::Python).unwrap();
    for source in [
        "x = 6\nx * 7",
        "1 / 0",
        "import os\nos._exit(7)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    ] {
        let (here, there) = (play(&python(), source), play(&process, source));
        assert_eq!(
            (here.ended, here.value, here.stdout, here.stderr),
            (there.ended, there.value, there.stdout, there.stderr),
            "{source}: the same as from the built-in backend"
        );
    }
}

fn bash_runs_too_and_sees_a_small_world() {
    assert_eq!(
        printed(
            &gvisor(Language::Bash),
            "echo $0; id -u; echo /*; shopt -s dotglob nullglob; echo /work/* /tmp/* /var/* /run/* /sys/*"
        ),
        "/program/main.sh\n1000\n/artifacts /bin /dev /etc /lib /lib64 /proc /program /run /sbin /sys /tmp /usr /var /work\n/work/in"
    );
    assert_eq!(play(&gvisor(Language::Bash), "exit 143").ended, Ended::Exit(143));
    assert_eq!(play(&gvisor(Language::Bash), "kill -TERM $$").ended, Ended::Signal(15));
}

fn files_go_in_and_artifacts_come_out() {
    let files = vec![InputFile { name: "a.csv".into(), bytes: b"1,2".to_vec() }];
    let source = "import os\ntext = open('/work/in/a.csv').read()\nos.makedirs('/artifacts/deep/er')\n\
                  open('/artifacts/deep/er/b.txt', 'w').write(text * 2)\n\
                  open('/artifacts/a.png', 'wb').write(b'\\x89PNG\\r\\n\\x1a\\n' + bytes(range(256)) * 2000)\n\
                  os.symlink('/etc/passwd', '/artifacts/link')\nimport socket; socket.socket(socket.AF_UNIX).bind('/artifacts/socket')";
    let outcome = try_run(&python(), Program { files, ..Program::new(source) }).unwrap();
    assert_eq!(outcome.ended, Ended::Exit(0), "{}", outcome.stderr.text);
    let seen: Vec<(&str, &str, usize)> = outcome
        .artifacts
        .iter()
        .map(|artifact| (artifact.name.as_str(), artifact.mime_type.as_str(), artifact.bytes.len()))
        .collect();
    assert_eq!(seen, [("a.png", "image/png", 512_008), ("deep/er/b.txt", "text/plain", 6)]);
    let left_out: Vec<&str> = outcome.left_out.iter().map(|left_out| left_out.name.as_str()).collect();
    assert_eq!(left_out, ["link", "socket"]);
    assert!(
        printed(
            &python(),
            "try:\n    open('/work/in/x', 'w')\nexcept OSError as error:\n    print(error.strerror)"
        )
        .contains("denied")
    );
}

fn artifacts_are_counted_and_capped() {
    let mut profile = python();
    profile.limits.artifact_bytes = 1 << 20;
    profile.limits.artifact_files = 2;
    let outcome = play(
        &profile,
        "for name in 'abc':\n    open('/artifacts/' + name, 'w').write(name)\ntry:\n    open('/artifacts/z', 'wb').write(bytes(2 << 20))\nexcept OSError as error:\n    print(error.strerror)",
    );
    assert_eq!(outcome.stdout.text, "No space left on device\n");
    assert_eq!((outcome.artifacts.len(), outcome.left_out.len()), (2, 2), "{:?}", outcome.left_out);
}

fn artifacts_come_out_even_after_the_time_is_up() {
    let mut profile = python();
    profile.limits.wall = Duration::from_millis(1500);
    let outcome = play(&profile, "open('/artifacts/a', 'w').write('so far')\nwhile True: pass");
    assert_eq!(outcome.ended, Ended::Timeout);
    assert_eq!(outcome.artifacts.len(), 1, "{:?}", outcome.left_out);
    assert!(outcome.receipt.nothing_left);
}

fn a_session_keeps_its_state() {
    in_runtime(async {
        let sandbox = Sandbox::new(python());
        let mut session = sandbox.session().await.unwrap();
        let mut ask = async |source: &str| {
            let outcome = session
                .run(Program::new(source), Arc::new(Unwatched), CancellationToken::new())
                .await
                .unwrap();
            (outcome.value, outcome.artifacts.len(), session.is_over())
        };
        assert_eq!(ask("x = 20").await, (None, 0, false));
        assert_eq!(
            ask("open('/artifacts/a', 'w').write('a')\nx += 1\nx * 2").await,
            (Some("42".into()), 1, false)
        );
        assert_eq!(ask("import os\nos._exit(0)").await, (None, 1, true));
    });
}

struct Heard(Mutex<Vec<(Stream, Duration)>>, Instant);

#[async_trait::async_trait]
impl egress::Watch for Heard {
    async fn decided(&self, _: &egress::Decision) -> Result<(), egress::Unrecorded> {
        Err(egress::Unrecorded)
    }
}

impl Watch for Heard {
    fn wrote(&self, stream: Stream, _: &[u8]) {
        self.0.lock().unwrap().push((stream, self.1.elapsed()));
    }
}

fn output_comes_while_the_program_runs() {
    let heard = Arc::new(Heard(Mutex::new(Vec::new()), Instant::now()));
    in_runtime(async {
        let sandbox = Sandbox::new(python());
        let source =
            "import time, sys\nprint(1, flush=True)\ntime.sleep(1)\nprint(2, file=sys.stderr, flush=True)";
        sandbox.run(Program::new(source), heard.clone(), CancellationToken::new()).await.unwrap();
    });
    let heard = heard.0.lock().unwrap();
    // A line may come in pieces.
    let first = heard.iter().find(|(stream, _)| *stream == Stream::Stdout).unwrap();
    let second = heard.iter().find(|(stream, _)| *stream == Stream::Stderr).unwrap();
    assert!(second.1 > first.1 + Duration::from_millis(700), "{heard:?}");
}

/// A root with bash and its libraries and nothing else.
fn a_folder_is_a_root_too() {
    let folder = tempfile::Builder::new().prefix("ringfence-rootfs").tempdir().unwrap();
    let open_to_all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open_to_all).unwrap();
    let libraries = std::process::Command::new("ldd").arg("/usr/bin/bash").output().unwrap();
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths.chain(["/usr/bin/bash"]) {
        let to = folder.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(path, to).unwrap();
    }
    let mut profile = gvisor(Language::Bash);
    profile.root = ringfence_sandbox::Root::Folder(folder.path().to_owned());
    assert_eq!(printed(&profile, "echo /usr/bin/* $UID; echo x > /artifacts/a"), "/usr/bin/bash 1000");
}

fn the_hosts_files_and_processes_are_not_there() {
    let folder = tempfile::Builder::new().prefix("ringfence-secret").tempdir_in("/var/tmp").unwrap();
    let secret = folder.path().join("secret.txt");
    std::fs::write(&secret, "the crown jewels").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let attack = format!("print(open('{}').read())", secret.display());
    let reads = |profile: &Profile| play(profile, &attack).stdout.text.contains("crown jewels");
    assert!(reads(&control()), "the control: without walls the file is read");
    assert!(!reads(&python()));
    let attack = "import os\nprint(sum(name.isdigit() for name in os.listdir('/proc')), os.uname().release)";
    let seen = printed(&python(), attack);
    let (processes, release) = seen.split_once(' ').unwrap();
    assert!(processes.parse::<u32>().unwrap() <= 3, "{seen}");
    let hosts = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_ne!(release, hosts.trim(), "the kernel is the sentry's");
    assert_eq!(printed(&control(), attack).split_once(' ').unwrap().1, hosts.trim(), "the control");
}

fn the_hosts_sockets_and_locks_are_not_reached() {
    let folder = tempfile::Builder::new().prefix("ringfence-test").tempdir_in("/usr/local/share").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = folder.path().join("daemon.sock");
    let _daemon = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).unwrap();
    let locked = std::fs::File::create(folder.path().join("lock")).unwrap();
    locked.lock().unwrap();
    let attack = format!(
        "import fcntl, socket\n\
         try:\n    socket.socket(socket.AF_UNIX).connect('{0}/daemon.sock'); print('connected')\n\
         except OSError as error:\n    print('refused')\n\
         try:\n    fcntl.flock(open('{0}/lock'), fcntl.LOCK_EX | fcntl.LOCK_NB); print('not locked')\n\
         except BlockingIOError:\n    print('the host holds it')",
        folder.path().display()
    );
    assert_eq!(printed(&control(), &attack), "connected\nthe host holds it", "the control");
    assert_eq!(printed(&python(), &attack), "refused\nnot locked");
}

/// The loopback listener alone: nothing beyond this machine is ever tried with the wall missing.
const REACH_LOOPBACK: &str = "
import socket
try:
    socket.create_connection(('127.0.0.1', PORT), timeout=0.5).close(); print('through')
except OSError as error:
    print(error.strerror or error)
";

fn the_network_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let heard = || std::iter::from_fn(|| listener.accept().ok()).count();
    let attack = REACH_LOOPBACK.replace("PORT", &port);
    let mut without = control();
    // Its network is then the host's.
    without = without.dangerously_without(&[Layer::NetworkNamespace]);
    assert_eq!((printed(&without, &attack), heard()), ("through".into(), 1), "the control");
    assert!(printed(&python(), &attack) != "through" && heard() == 0);
    let interfaces =
        "print([line.split(':')[0].strip() for line in open('/proc/self/net/dev').read().splitlines()[2:]])";
    assert_eq!(printed(&python(), interfaces), "['lo']");
}

fn there_are_no_privileges() {
    let source = "import os\nprint(os.getresuid(), os.getresgid(), os.getgroups())\nprint({line.split()[1] for line in open('/proc/self/status') if line.startswith('Cap')})";
    assert_eq!(printed(&python(), source), "(1000, 1000, 1000) (1000, 1000, 1000) []\n{'0000000000000000'}");
    assert!(!printed(&control(), source).ends_with("{'0000000000000000'}"), "the control");
    let writes = "for path in ['/x', '/usr/x', '/etc/x', '/dev/x', '/program/main.py', '/program/.guest/x', '/sys/x', '/proc/sys/kernel/x']:\n    try:\n        open(path, 'w'); print('through', path)\n    except OSError as error:\n        pass\nprint('none')";
    assert_eq!(printed(&python(), writes), "none");
}

fn the_sandbox_holds_against_itself() {
    for language in [Language::Python, Language::Bash] {
        let profile = gvisor(language);
        let probes = in_runtime(async {
            let sandbox = Sandbox::new(profile);
            let probes = sandbox.self_attack().await.unwrap();
            sandbox.close().await;
            probes
        });
        assert!(probes.len() > 10, "{probes:?}");
        let holes: Vec<String> =
            probes.into_iter().filter(|probe| !probe.held).map(|probe| probe.name).collect();
        assert_eq!(holes, Vec::<String>::new(), "{language:?}");
    }
    let mut weak = strongest(Language::Python).unwrap();
    weak = weak.dangerously_without(&[Layer::OwnRoot, Layer::Seccomp, Layer::Landlock]);
    let found = in_runtime(async {
        let sandbox = Sandbox::new(weak);
        let probes = sandbox.self_attack().await.unwrap();
        sandbox.close().await;
        probes
    });
    assert!(found.iter().any(|probe| probe.name == "host_files" && !probe.held), "the control: {found:?}");
}

fn a_fork_bomb_is_held() {
    let attack = "
import os, time
count = 0
try:
    while count < 5000:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except OSError:
    pass
print(count, flush=True)
";
    let held: u32 = printed(&python(), attack).parse().unwrap();
    assert!(held < 40, "{held} processes");
    let mut profile = python();
    (profile.limits.processes, profile.limits.memory_bytes) = (64, 1 << 30);
    let control: u32 = printed(&profile, attack).parse().unwrap();
    assert!((41..70).contains(&control), "the control: with a wider limit there are more, {control}");
}

fn a_memory_bomb_is_held() {
    let mut profile = python();
    let attack = "x = bytearray(200 * 1024 * 1024)\nprint(len(x))";
    assert_eq!(printed(&profile, attack), "209715200", "the control: with room it gets it");
    profile.limits.memory_bytes = 64 << 20;
    let outcome = play(&profile, attack);
    match profile.resources {
        Resources::Cgroup => assert_eq!(outcome.ended, Ended::OutOfMemory),
        Resources::RlimitsOnly => {
            assert!(outcome.stderr.text.contains("MemoryError"), "{}", outcome.stderr.text);
        }
    }
    assert!(outcome.receipt.nothing_left);
}

fn a_full_disk_is_the_sandboxs_own() {
    let mut profile = python();
    profile.limits.work_bytes = 8 << 20;
    let source = "
try:
    for name in 'abcd':
        with open('/work/' + name, 'wb') as file:
            for _ in range(7): file.write(bytes(1 << 20))
    print('through')
except OSError as error:
    print(error.strerror)
";
    let said = play(&profile, source).stdout.text;
    assert!(said.contains("No space left") || said.contains("File too large"), "{said}");
}

/// Processes of the backend, of this test's own: the launcher is this process's child.
fn processes() -> usize {
    processes_of("ringfence-gvisor", std::process::id()).len()
}

/// Whether some process of the host has this among its arguments.
fn is_running(argument: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    })
}

fn time_is_up_even_for_a_grandchild() {
    let mut profile = python();
    profile.limits.wall = Duration::from_secs(2);
    let began = Instant::now();
    let outcome = play(
        &profile,
        "import subprocess\nsubprocess.Popen(['/usr/bin/sleep', '60'])\nprint('started', flush=True)\nwhile True: pass",
    );
    assert_eq!((outcome.ended, outcome.stdout.text.as_str()), (Ended::Timeout, "started\n"));
    assert!(began.elapsed() < Duration::from_secs(12));
    // A grandchild that is left in the background neither survives nor holds the run open.
    let began = Instant::now();
    let outcome = play(&python(), "import subprocess\nsubprocess.Popen(['/usr/bin/sleep', '71'])");
    assert_eq!(outcome.ended, Ended::Exit(0));
    assert!(began.elapsed() < Duration::from_secs(12) && outcome.receipt.nothing_left);
    assert_eq!(processes(), 0);
}

fn too_much_output_ends_the_program() {
    let mut profile = python();
    profile.limits.output_bytes_max = 1 << 20;
    let outcome = play(&profile, "while True: print('x' * 1000)");
    assert_eq!(outcome.ended, Ended::OutputLimit);
    assert!(outcome.receipt.nothing_left && outcome.stdout.text.len() <= 2 << 20);
}

fn long_output_keeps_its_head_and_tail() {
    let mut profile = python();
    profile.limits.output_bytes = 100;
    let outcome = play(&profile, "print('a' * 500 + 'z' * 500)");
    let text = format!("{}\n[… 901 bytes left out …]\n{}\n", "a".repeat(75), "z".repeat(24));
    assert_eq!(outcome.stdout, Captured { text, bytes_total: 1001, cut: true });
}

fn who_no_longer_wants_it_stops_it() {
    let began = Instant::now();
    let cancelled = CancellationToken::new();
    let soon = cancelled.clone();
    let outcome = in_runtime(async {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(2500)).await;
            soon.cancel();
        });
        run(&python(), Program::new("while True: pass"), cancelled).await
    })
    .unwrap();
    assert_eq!(outcome.ended, Ended::Cancelled);
    assert!(outcome.receipt.nothing_left && began.elapsed() < Duration::from_secs(12));
}

fn who_drops_it_destroys_it() {
    in_runtime(async {
        let sandbox = Sandbox::new(python());
        let program = Program::new("while True: pass");
        let running = sandbox.run(program, Arc::new(Unwatched), CancellationToken::new());
        assert!(tokio::time::timeout(Duration::from_secs(3), running).await.is_err());
        let deadline = Instant::now() + Duration::from_secs(10);
        while processes() > 0 {
            assert!(Instant::now() < deadline, "it is still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// The word that makes this executable a gateway with one sandbox.
const GATEWAY: &str = "be-a-gateway";

fn a_gateway_that_dies_takes_its_sandboxes_along() {
    let own = std::env::current_exe().unwrap();
    let mut gateway = std::process::Command::new(own).arg(GATEWAY).spawn().unwrap();
    let first = |above: u32| processes_of("ringfence-gvisor", above).first().copied();
    let launcher = wait_for("it has a launcher", || first(gateway.id()));
    let init = wait_for("the launcher has an init", || first(launcher));
    let has_parent =
        |pid| std::fs::read_dir("/proc").unwrap().flatten().any(|entry| parent(&entry.path()) == Some(pid));
    wait_for("init has `runsc`", || has_parent(init).then_some(()));
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    let is_there = |pid: u32| parent(Path::new(&format!("/proc/{pid}"))).is_some();
    wait_for("nothing is left", || (!is_there(launcher) && !is_there(init)).then_some(()));
    let cgroups = format!("ringfence-gvisor-{}-", gateway.id());
    assert!(!find(Path::new("/sys/fs/cgroup"), &cgroups, 4), "a cgroup is left");
}

fn wait_for<T>(what: &str, found: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within its time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn parent(process: &Path) -> Option<u32> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    // State and parent come after the name, which may have anything in it.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn processes_of(name: &str, above: u32) -> Vec<u32> {
    let is_one = |path: &Path| {
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).next() == Some(name.as_bytes()) && parent(path) == Some(above)
    };
    let found = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| is_one(&entry.path()));
    found.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn a_runsc_that_does_not_start_refuses_the_run() {
    let with = |settings: GvisorSettings| {
        let mut profile = python();
        profile.isolation = Isolation::Gvisor(settings);
        let run = try_run(&profile, Program::new("print('ran')")).unwrap_err();
        let sandbox = Sandbox::new(profile);
        let warm = in_runtime(async { sandbox.warm().await }).unwrap_err();
        assert_eq!(run.layer, warm.layer);
        assert!(run.reason.contains("install runsc"), "{run}");
        run
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let idle = folder.path().join("runsc");
    std::fs::write(&idle, "not a program").unwrap();
    let wrong = ["/nowhere/runsc", "runsc", idle.to_str().unwrap(), "/usr/bin/false"];
    for runtime in wrong {
        let refused = with(GvisorSettings { runtime: runtime.into(), ..GvisorSettings::default() });
        assert_eq!(refused.layer, "gvisor", "{runtime}: {refused}");
    }
    let refused = with(GvisorSettings { platform: "none-such".into(), ..GvisorSettings::default() });
    assert!(refused.layer == "gvisor" && refused.reason.contains("none-such"), "{refused}");
    in_runtime(async { Sandbox::new(python()).warm().await }).unwrap();
}

fn nothing_is_left_after_many_runs() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let folder = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
    let folders = || ["/tmp/bundle", "/tmp/state", "/var/run/runsc", "/run/runsc"].map(folder);
    let profile = python();
    let outcome = play(&profile, "pass");
    let before = (mounts(), descriptors(), folders());
    for _ in 0..10 {
        assert!(play(&profile, "pass").receipt.nothing_left);
    }
    assert_eq!((mounts(), descriptors(), folders(), processes()), (before.0, before.1, before.2, 0));
    let user = outcome.receipt.host_uid;
    assert!(!is_running("--bundle") || user == rustix::process::getuid().as_raw(), "a runsc is left");
    if profile.resources == Resources::Cgroup {
        let own = format!("ringfence-gvisor-{}-", std::process::id());
        let left = find(Path::new("/sys/fs/cgroup"), &own, 4);
        assert!(!left, "a cgroup is left");
    }
}

fn find(folder: &Path, prefix: &str, depth: usize) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).any(|entry| {
        entry.file_name().to_string_lossy().starts_with(prefix)
            || (depth > 0 && find(&entry.path(), prefix, depth - 1))
    })
}
