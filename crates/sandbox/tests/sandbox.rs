//! Attacks on the sandbox, each with a control that shows it working where its wall is missing.
//!
//! The executable is its own jail, so the tests have a `main` of their own. Attacks stay on this machine, end by
//! themselves and never run without the layer that keeps them from harm: what would harm is tried with its wall alone.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests"
)]

use std::io::Read as _;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use ringfence_sandbox::{
    Captured, Ended, Fault, InputFile, Language, Layer, Outcome, Profile, Program, Refused, Resources, Root,
    Sandbox, Start, Stream, Unwatched, WayOut, egress, probe, run, strongest,
};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    ringfence_sandbox::enter_if_jail();
    let tests: &[(&str, fn())] = &[
        (
            "a_program_runs_and_its_receipt_names_every_layer",
            a_program_runs_and_its_receipt_names_every_layer,
        ),
        ("bash_runs_too_and_sees_a_small_world", bash_runs_too_and_sees_a_small_world),
        ("files_go_in_and_their_names_are_plain", files_go_in_and_their_names_are_plain),
        ("deleting_everything_deletes_the_sandbox_alone", deleting_everything_deletes_the_sandbox_alone),
        ("the_hosts_files_are_not_there", the_hosts_files_are_not_there),
        ("the_hosts_folders_are_other_inodes", the_hosts_folders_are_other_inodes),
        ("the_hosts_processes_are_not_there", the_hosts_processes_are_not_there),
        ("no_environment_and_no_descriptor_comes_in", no_environment_and_no_descriptor_comes_in),
        ("the_network_is_not_there", the_network_is_not_there),
        ("forbidden_system_calls_fail", forbidden_system_calls_fail),
        ("no_user_namespace_can_be_made_inside", no_user_namespace_can_be_made_inside),
        ("there_are_no_privileges", there_are_no_privileges),
        ("the_sandbox_holds_against_itself", the_sandbox_holds_against_itself),
        ("a_fork_bomb_is_held", a_fork_bomb_is_held),
        ("a_memory_bomb_is_held", a_memory_bomb_is_held),
        ("a_full_disk_is_the_sandboxs_own", a_full_disk_is_the_sandboxs_own),
        ("time_is_up_even_for_a_grandchild", time_is_up_even_for_a_grandchild),
        ("too_much_output_ends_the_program", too_much_output_ends_the_program),
        ("long_output_keeps_its_head_and_tail", long_output_keeps_its_head_and_tail),
        ("who_no_longer_wants_it_stops_it", who_no_longer_wants_it_stops_it),
        ("a_layer_that_is_missing_refuses_the_run", a_layer_that_is_missing_refuses_the_run),
        ("nothing_is_left_after_many_runs", nothing_is_left_after_many_runs),
        ("an_interpreter_is_forked_or_started_anew", an_interpreter_is_forked_or_started_anew),
        ("one_that_waits_is_used_once", one_that_waits_is_used_once),
        ("a_session_keeps_its_state", a_session_keeps_its_state),
        ("artifacts_come_back", artifacts_come_back),
        ("node_runs_where_the_machine_has_it", node_runs_where_the_machine_has_it),
        ("a_folder_can_be_the_root", a_folder_can_be_the_root),
        ("a_layer_that_fails_refuses_the_run", a_layer_that_fails_refuses_the_run),
        ("output_is_heard_as_it_comes", output_is_heard_as_it_comes),
    ];
    let trials = tests.iter().map(|(name, test)| {
        let test = *test;
        // The numbers of system calls in it are those of one architecture.
        let is_elsewhere = *name == "forbidden_system_calls_fail" && std::env::consts::ARCH != "x86_64";
        // It has to put something below the host's `/usr` for a moment.
        let needs_root =
            *name == "the_hosts_folders_are_other_inodes" && !rustix::process::getuid().is_root();
        Trial::test(*name, move || {
            std::panic::catch_unwind(test).map_err(|cause| Failed::from(text_of(&*cause)))
        })
        .with_ignored_flag(is_elsewhere || needs_root)
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

fn python() -> Profile {
    let mut profile = strongest(Language::Python).unwrap();
    profile.limits.wall = Duration::from_secs(10);
    profile.limits.memory_bytes = 256 << 20;
    profile.limits.processes = 32;
    profile
}

/// The profile with these layers alone, besides those without which nothing would be confined to a test.
fn with_only(profile: &Profile, kept: &[Layer]) -> Profile {
    let always = [Layer::UserNamespace, Layer::PidNamespace, Layer::OtherNamespaces, Layer::Limits];
    let off: Vec<Layer> =
        Layer::ALL.into_iter().filter(|layer| !kept.contains(layer) && !always.contains(layer)).collect();
    profile.clone().dangerously_without(&off)
}

fn try_run(profile: &Profile, source: &str) -> Result<Outcome, Refused> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(profile, Program::new(source), CancellationToken::new()))
}

fn play(profile: &Profile, source: &str) -> Outcome {
    try_run(profile, source).unwrap()
}

/// What a program prints that must end well.
fn printed(profile: &Profile, source: &str) -> String {
    let outcome = play(profile, source);
    assert_eq!(outcome.ended, Ended::Exit(0), "{source}\n{}", outcome.stderr.text);
    outcome.stdout.text.trim_end().to_owned()
}

fn a_program_runs_and_its_receipt_names_every_layer() {
    let outcome = play(&python(), "import os, sys\nprint('hello', os.getuid(), os.getcwd())\nsys.exit(3)");
    assert_eq!(outcome.ended, Ended::Exit(3));
    assert_eq!(outcome.stdout, Captured { text: "hello 1000 /work\n".into(), bytes_total: 17, cut: false });
    let receipt = outcome.receipt;
    assert_eq!(receipt.layers.len(), Layer::ALL.len());
    assert!(receipt.nothing_left && receipt.landlock_abi >= 2 && receipt.host_uid != 0, "{receipt:?}");
    assert_eq!((receipt.filter.len(), receipt.egress), (64, Vec::<String>::new()));
    assert!(receipt.used.memory_peak_bytes > 0 && receipt.used.wall_us > 0, "{:?}", receipt.used);
}

fn bash_runs_too_and_sees_a_small_world() {
    let bash = strongest(Language::Bash).unwrap();
    assert_eq!(
        printed(&bash, "echo $0; id -u; ls -A / | tr '\\n' ' '; ls -A /work /tmp /var /run | tr '\\n' ' '"),
        "/program/main.sh\n1000\nartifacts bin dev etc lib lib64 proc program run sbin tmp usr var work /run:  /tmp:  /var:  /work: in"
    );
}

fn files_go_in_and_their_names_are_plain() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let with = |name: &str| {
        let source = "print(open('/work/in/a.csv').read())".to_owned();
        let files = vec![InputFile { name: name.into(), bytes: b"1,2".to_vec() }];
        let program = Program { files, ..Program::new(source) };
        runtime.block_on(run(&python(), program, CancellationToken::new()))
    };
    assert_eq!(with("a.csv").unwrap().stdout.text, "1,2\n");
    for bad in ["", "../a.csv", "/etc/passwd", ".bashrc", "a\0b", "a/b"] {
        assert_eq!(with(bad).unwrap_err().layer, "input", "{bad:?}");
    }
}

/// Counts what could be lost. Only ever tried with a root of its own: that wall, alone, must hold.
fn deleting_everything_deletes_the_sandbox_alone() {
    let count = || ["/usr/bin", "/etc", "/"].map(|folder| std::fs::read_dir(folder).unwrap().count());
    let before = count();
    let bash = strongest(Language::Bash).unwrap();
    let attack = "rm -rf --no-preserve-root / 2>/dev/null; touch /tmp/x 2>/dev/null; ls /work /tmp | wc -l";
    for profile in [bash.clone(), with_only(&bash, &[Layer::OwnRoot])] {
        let outcome = play(&profile, attack);
        assert_eq!(outcome.ended, Ended::Exit(0), "{}", outcome.stderr.text);
        assert_eq!(count(), before);
    }
    // The control: within its own folders it does delete.
    assert_eq!(
        printed(
            &bash,
            "touch /work/a /tmp/b; rm -rf --no-preserve-root / 2>/dev/null; ls -A /work /tmp | grep -c '^[ab]$'; true"
        ),
        "0"
    );
    assert_eq!(
        printed(&bash, "echo fine; ls /usr/bin/env"),
        "fine\n/usr/bin/env",
        "the next run finds everything in place"
    );
}

fn the_hosts_files_are_not_there() {
    let folder = tempfile::Builder::new().prefix("ringfence-secret").tempdir_in("/var/tmp").unwrap();
    let secret = folder.path().join("secret.txt");
    std::fs::write(&secret, "the crown jewels").unwrap();
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open_to_all).unwrap();
    let attack = format!("print(open('{}').read())", secret.display());
    let reads = |profile: &Profile| play(profile, &attack).stdout.text.contains("crown jewels");
    let python = python();
    assert!(reads(&with_only(&python, &[])), "the control: without both walls the file is read");
    assert!(!reads(&with_only(&python, &[Layer::OwnRoot])), "a root of its own, alone");
    assert!(!reads(&with_only(&python, &[Layer::Landlock])), "Landlock, alone");
    assert!(!reads(&python));
}

/// A socket, a lock and a watch on the host's own inodes would reach its processes, read-only or not.
fn the_hosts_folders_are_other_inodes() {
    let folder = tempfile::Builder::new().prefix("ringfence-test").tempdir_in("/usr/local/share").unwrap();
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(folder.path(), open_to_all(0o755)).unwrap();
    let socket = folder.path().join("daemon.sock");
    let _daemon = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, open_to_all(0o777)).unwrap();
    let locked = std::fs::File::create(folder.path().join("lock")).unwrap();
    locked.lock().unwrap();
    let attack = format!(
        "import fcntl, socket\n\
         try:\n    socket.socket(socket.AF_UNIX).connect('{0}/daemon.sock'); print('connected')\n\
         except OSError as error:\n    print(type(error).__name__)\n\
         try:\n    fcntl.flock(open('{0}/lock'), fcntl.LOCK_EX | fcntl.LOCK_NB); print('not locked')\n\
         except BlockingIOError:\n    print('the host holds it')",
        folder.path().display()
    );
    let python = python();
    let control = printed(&with_only(&python, &[]), &attack);
    assert_eq!(
        control, "connected\nthe host holds it",
        "the control: through the host's own mount both reach it"
    );
    assert_eq!(
        printed(&with_only(&python, &[Layer::OwnRoot]), &attack),
        "ConnectionRefusedError\nnot locked"
    );
    let watch = "import ctypes, errno, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
                 print(libc.inotify_init1(0), errno.errorcode.get(ctypes.get_errno()))";
    assert_eq!(printed(&python, watch), "-1 ENOSYS");
    assert!(
        !printed(&python.clone().dangerously_without(&[Layer::Seccomp]), watch).starts_with("-1"),
        "the control"
    );
}

fn the_hosts_processes_are_not_there() {
    let attack = "import os\nprint(sum(name.isdigit() for name in os.listdir('/proc')))";
    let seen: usize = printed(&python(), attack).parse().unwrap();
    assert!((1..=3).contains(&seen), "{seen}");
    let on_host = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    assert!(on_host.count() > 3, "the control: the host has more");
    let kill = format!("import os\nos.kill({}, 0)", std::process::id());
    assert!(play(&python(), &kill).stderr.text.contains("ProcessLookupError"));
}

fn the_sandbox_holds_against_itself() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let holes = |profile: &Profile| {
        let sandbox = Sandbox::new(profile.clone());
        let probes = runtime.block_on(sandbox.self_attack()).unwrap();
        runtime.block_on(sandbox.close());
        assert!(probes.len() > 10, "{probes:?}");
        probes.into_iter().filter(|probe| !probe.held).map(|probe| probe.name).collect::<Vec<_>>()
    };
    for language in [Language::Python, Language::Bash] {
        let profile = strongest(language).unwrap();
        assert_eq!(holes(&profile), Vec::<String>::new());
        let mut with_egress = profile.clone();
        with_egress.egress = Some(WayOut::new(egress::Rules::parse(&["api.example.com"]).unwrap()).unwrap());
        assert_eq!(holes(&with_egress), Vec::<String>::new());
        // The control: without its walls, the same attack finds them missing.
        let weak = with_only(&profile, &[]);
        let found = holes(&weak);
        let of_system_calls: &[&str] = match language {
            Language::Python => &["chroot", "kernel_surface", "sockets", "unshare_user"],
            Language::Bash | Language::Node => &[],
        };
        for hole in ["host_files", "kernel_settings"].iter().chain(of_system_calls) {
            assert!(found.iter().any(|found| found == hole), "{language:?}: {hole} is not in {found:?}");
        }
    }
}

fn no_environment_and_no_descriptor_comes_in() {
    let control = std::process::Command::new("/usr/bin/env").env("SECRET_TOKEN", "s3cret").output().unwrap();
    assert!(
        String::from_utf8_lossy(&control.stdout).contains("s3cret"),
        "the control: an ordinary child inherits"
    );
    let source = "import os\nprint(sorted(os.environ))\nprint(sorted(os.listdir('/proc/self/fd')))\n\
                  for path in ['/proc/1/environ', '/proc/1/mem', '/proc/1/maps']:\n    try:\n        print(open(path, 'rb').read(100))\n    except OSError as error:\n        print(path, type(error).__name__)";
    let seen = printed(&python(), source);
    let mut lines = seen.lines();
    let names = lines.next().unwrap();
    assert!(!names.contains("CARGO") && !names.contains("SECRET") && names.contains("'HOME'"), "{names}");
    let descriptors = lines.next().unwrap();
    assert_eq!(descriptors, "['0', '1', '2', '3', '4']", "the driver's own, and the listing itself");
    for path in ["environ", "mem", "maps"] {
        assert!(lines.next().unwrap().ends_with("PermissionError"), "/proc/1/{path}: {seen}");
    }
}

/// First it must show that it has no interface but a dead loopback and no route; only then it tries to reach something.
const REACH_OUT: &str = "
import socket, sys
interfaces = [line.split(':')[0].strip() for line in open('/proc/self/net/dev').read().splitlines()[2:]]
routes = open('/proc/self/net/route').read().splitlines()[1:]
print(interfaces, routes)
if (interfaces, routes) == (['lo'], []) or sys.argv[1:] == ['anyway']:
    for address in [('127.0.0.1', PORT), ('169.254.169.254', 80), ('10.0.0.1', 80)]:
        try:
            socket.create_connection(address, timeout=0.5).close(); print('through', address)
        except OSError as error:
            print(error.strerror or error)
    try:
        print('through', socket.getaddrinfo('example.com', 80))
    except OSError as error:
        print(error.strerror or error)
";

/// The control reaches for the loopback listener alone: nothing beyond this machine is ever tried with the wall missing.
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
    let python = python();
    let loopback = |profile: &Profile| (printed(profile, &REACH_LOOPBACK.replace("PORT", &port)), heard());
    let without = with_only(&python, &[Layer::OwnRoot]);
    assert_eq!(loopback(&without), ("through".into(), 1), "the control: without its walls it gets through");
    for wall in [Layer::NetworkNamespace, Layer::Seccomp, Layer::Landlock] {
        let (said, heard) = loopback(&with_only(&python, &[Layer::OwnRoot, wall]));
        assert!(said != "through" && heard == 0, "{wall:?} alone: {said}");
    }
    let said = printed(&python, &REACH_OUT.replace("PORT", &port));
    assert!(said.starts_with("['lo'] []") && !said.contains("through"), "{said}");
    assert_eq!(heard(), 0);
}

fn forbidden_system_calls_fail() {
    let source = "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def ask(name, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(*arguments)
    print(name, 'through' if result >= 0 else os.strerror(ctypes.get_errno()))
ask('ptrace', 101, 0, 0, 0, 0)
ask('unshare', 272, 0x10000000)
ask('clone_newuser', 56, 0x10000000 | 17, 0, 0, 0, 0)
ask('clone3', 435, 0, 0)
ask('io_uring_setup', 425, 1, 0)
ask('bpf', 321, 0, 0, 0)
ask('keyctl', 250, 0, 0)
ask('userfaultfd', 323, 0)
ask('af_netlink', 41, 16, 3, 0)
ask('af_vsock', 41, 40, 1, 0)
ask('af_alg', 41, 38, 5, 0)
ask('af_inet', 41, 2, 1, 0)
ask('mount', 165, 0, 0, 0, 0, 0)
ask('unknown', 4000)
";
    let said = printed(&python(), source);
    let expected = "ptrace Operation not permitted
unshare Operation not permitted
clone_newuser Operation not permitted
clone3 Function not implemented
io_uring_setup Operation not permitted
bpf Operation not permitted
keyctl Operation not permitted
userfaultfd Operation not permitted
af_netlink Address family not supported by protocol
af_vsock Address family not supported by protocol
af_alg Address family not supported by protocol
af_inet Address family not supported by protocol
mount Operation not permitted
unknown Function not implemented";
    assert_eq!(said, expected);
    let without = python().dangerously_without(&[Layer::Seccomp]);
    let control = printed(&without, source);
    assert!(
        control.contains("ptrace through") && control.contains("af_inet through"),
        "the control: {control}"
    );
}

fn no_user_namespace_can_be_made_inside() {
    let source = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nprint(libc.unshare(0x10000000), os.strerror(ctypes.get_errno()))";
    let with = |layers: &[Layer]| printed(&with_only(&python(), layers), source);
    assert_eq!(with(&[Layer::OwnRoot]), "0 Success", "the control: without both walls there is one");
    assert_eq!(
        with(&[Layer::OwnRoot, Layer::NoNestedNamespaces]),
        "-1 No space left on device",
        "the kernel's count, alone"
    );
    assert_eq!(with(&[Layer::OwnRoot, Layer::Seccomp]), "-1 Operation not permitted", "the filter, alone");
}

fn there_are_no_privileges() {
    let source = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith(('Cap', 'NoNewPrivs'))])";
    let none = "0000000000000000";
    assert_eq!(
        printed(&python(), source),
        format!("['{none}', '{none}', '{none}', '{none}', '{none}', '1']")
    );
    let control = printed(&python().dangerously_without(&[Layer::NoPrivileges, Layer::Seccomp]), source);
    assert!(!control.contains("'1']"), "the control: {control}");
    let writes = printed(
        &python(),
        "import os\nfor path in ['/x', '/usr/x', '/etc/x', '/dev/x', '/program/main.py', '/proc/sys/kernel/x']:\n    try:\n        open(path, 'w'); print('through', path)\n    except OSError as error:\n        pass\nprint('none')",
    );
    assert_eq!(writes, "none");
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
print(count)
";
    let mut profile = python();
    let held: u32 = printed(&profile, attack).parse().unwrap();
    assert!(held < 40, "{held} processes");
    profile.limits.processes = 200;
    let control: u32 = printed(&profile, attack).parse().unwrap();
    assert!((41..5000).contains(&control), "the control: with a wider limit there are more, {control}");
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
    with open('/work/x', 'wb') as file:
        for _ in range(64): file.write(bytes(1 << 20))
    print('through')
except OSError as error:
    print(error.strerror)
";
    let said = play(&profile, source).stdout.text;
    assert!(said.contains("No space left") || said.contains("File too large"), "{said}");
}

fn time_is_up_even_for_a_grandchild() {
    let mut profile = python();
    profile.limits.wall = Duration::from_millis(700);
    let began = Instant::now();
    let outcome = play(
        &profile,
        "import subprocess\nsubprocess.Popen(['/usr/bin/sleep', '60'])\nprint('started', flush=True)\nwhile True: pass",
    );
    assert_eq!((outcome.ended, outcome.stdout.text.as_str()), (Ended::Timeout, "started\n"));
    assert!(began.elapsed() < Duration::from_secs(8));
    // A grandchild that is left in the background neither survives nor holds the run open.
    let began = Instant::now();
    assert_eq!(
        play(&profile, "import subprocess\nsubprocess.Popen(['/usr/bin/sleep', '71'])").ended,
        Ended::Exit(0)
    );
    assert!(began.elapsed() < Duration::from_secs(8));
    assert!(!is_running("/usr/bin/sleep\0"), "no sleeper of a sandbox is left on the machine");
}

fn is_running(command: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let mut text = String::new();
            std::fs::File::open(entry.path().join("cmdline")).ok()?.read_to_string(&mut text).ok()?;
            Some(text)
        })
        .any(|text| text.starts_with(command) && (text.ends_with("60\0") || text.ends_with("71\0")))
}

fn too_much_output_ends_the_program() {
    let mut profile = python();
    profile.limits.output_bytes_max = 1 << 20;
    let outcome = play(&profile, "while True: print('x' * 1000)");
    assert_eq!(outcome.ended, Ended::OutputLimit);
    assert!(outcome.stdout.cut || outcome.stdout.text.len() <= 2 << 20);
}

fn long_output_keeps_its_head_and_tail() {
    let mut profile = python();
    profile.limits.output_bytes = 100;
    let outcome = play(&profile, "print('a' * 500 + 'z' * 500)");
    let text = format!("{}\n[… 901 bytes left out …]\n{}\n", "a".repeat(75), "z".repeat(24));
    assert_eq!(outcome.stdout, Captured { text, bytes_total: 1001, cut: true });
}

fn who_no_longer_wants_it_stops_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let began = Instant::now();
    let cancelled = CancellationToken::new();
    let soon = cancelled.clone();
    let outcome = runtime
        .block_on(async {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                soon.cancel();
            });
            run(&python(), Program::new("while True: pass"), cancelled).await
        })
        .unwrap();
    assert_eq!(outcome.ended, Ended::Cancelled);
    assert!(outcome.receipt.nothing_left && began.elapsed() < Duration::from_secs(8));
}

fn a_layer_that_is_missing_refuses_the_run() {
    let mut profile = python();
    profile.landlock_abi_min = 1000;
    let refused = try_run(&profile, "print('ran')").unwrap_err();
    assert_eq!(refused.layer, "landlock");
    if probe().cgroup.is_none() {
        let mut profile = python();
        profile.resources = Resources::Cgroup;
        assert_eq!(try_run(&profile, "print('ran')").unwrap_err().layer, "limits");
    }
}

fn nothing_is_left_after_many_runs() {
    let children = || {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|entry| {
                std::fs::read_to_string(entry.path().join("cmdline"))
                    .is_ok_and(|text| text.starts_with("ringfence-jail"))
                    && std::fs::read_to_string(entry.path().join("stat"))
                        .is_ok_and(|text| text.contains(&format!(" {} ", std::process::id())))
            })
            .count()
    };
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let profile = python();
    play(&profile, "pass");
    let before = (mounts(), descriptors());
    for _ in 0..20 {
        assert!(play(&profile, "pass").receipt.nothing_left);
    }
    assert_eq!((mounts(), descriptors(), children()), (before.0, before.1, 0));
}

/// Every layer is put up by Rust in the one and by the forked interpreter in the other: a program sees no difference.
fn an_interpreter_is_forked_or_started_anew() {
    let source = "
import os, resource
status = dict(line.rstrip().partition(':\\t')[::2] for line in open('/proc/self/status'))
print([status[name] for name in ('Uid', 'Gid', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp')])
print([resource.getrlimit(limit) for limit in range(16)])
print(sorted(os.environ.items()), os.getcwd(), os.uname().nodename, sorted(os.listdir('/')))
print([line.split(' - ')[0].split()[3:6] for line in open('/proc/self/mountinfo')])
print(os.getpid() > 1, os.getsid(0) > 0, os.getgroups(), open('/proc/self/setgroups').read())
";
    let mut profile = python();
    let said: Vec<String> = [Start::Fork, Start::Exec]
        .into_iter()
        .map(|start| {
            profile.start = start;
            printed(&profile, source)
        })
        .collect();
    assert_eq!(said[0], said[1]);
    assert!(said[0].contains("'0000000000000000', '1', '2']"), "{}", said[0]);
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

async fn play_in(sandbox: &Sandbox, source: &str) -> Outcome {
    sandbox.run(Program::new(source), Arc::new(Unwatched), CancellationToken::new()).await.unwrap()
}

fn one_that_waits_is_used_once() {
    for start in [Start::Fork, Start::Exec] {
        let mut profile = python();
        (profile.ready, profile.start) = (2, start);
        let sandbox = Sandbox::new(profile);
        block_on(async {
            sandbox.warm().await.unwrap();
            let leave = "import builtins, sys, threading, time\nprint(getattr(builtins, 'left', 'pristine'))\n\
                         builtins.left = 'spoiled'; sys.modules['json'] = None; open('/tmp/left', 'w').close()\n\
                         threading.Thread(target=time.sleep, args=(60,), daemon=True).start()";
            let look =
                "import builtins, os, json\nprint(getattr(builtins, 'left', 'pristine'), os.listdir('/tmp'))";
            for _ in 0..6 {
                assert_eq!(play_in(&sandbox, leave).await.stdout.text, "pristine\n");
                assert_eq!(play_in(&sandbox, look).await.stdout.text, "pristine []\n");
            }
            let secrets =
                "import os, random, uuid\nprint(random.random(), uuid.uuid4(), os.urandom(8).hex())";
            let (one, other) = (play_in(&sandbox, secrets).await, play_in(&sandbox, secrets).await);
            let words =
                |outcome: &Outcome| outcome.stdout.text.split(' ').map(str::to_owned).collect::<Vec<_>>();
            assert!(words(&one).iter().zip(words(&other)).all(|(one, other)| *one != other), "{start:?}");
            sandbox.close().await;
        });
    }
}

fn a_session_keeps_its_state() {
    block_on(async {
        let sandbox = Sandbox::new(python());
        let mut session = sandbox.session().await.unwrap();
        let mut next = async |source: &str| {
            let outcome = session
                .run(Program::new(source), Arc::new(Unwatched), CancellationToken::new())
                .await
                .unwrap();
            (outcome.ended, outcome.stdout.text, outcome.value, session.is_over())
        };
        assert_eq!(next("x = 20; print('kept')").await, (Ended::Exit(0), "kept\n".into(), None, false));
        assert_eq!(next("1/0").await.0, Ended::Exit(1));
        assert_eq!(next("x + 1").await, (Ended::Exit(0), String::new(), Some("21".into()), false));
        let over = next("import os; os._exit(7)").await;
        assert_eq!((over.0, over.3), (Ended::Exit(7), true));
        let refused = session.run(Program::new("x"), Arc::new(Unwatched), CancellationToken::new()).await;
        assert_eq!(refused.unwrap_err().layer, "session");
        let mut other = sandbox.session().await.unwrap();
        let fresh =
            other.run(Program::new("x"), Arc::new(Unwatched), CancellationToken::new()).await.unwrap();
        assert!(fresh.stderr.text.contains("NameError"), "a session of its own");
        drop(other);
        sandbox.close().await;
    });
}

fn artifacts_come_back() {
    let source = "
import os
os.makedirs('/artifacts/deep/er')
open('/artifacts/plot.png', 'wb').write(b'\\x89PNG\\r\\n\\x1a\\n' + bytes(20))
open('/artifacts/deep/er/a.csv', 'w').write('1,2\\n')
open('/artifacts/fake.png', 'wb').write(b'GIF89a' + bytes(20))
os.symlink('/etc/passwd', '/artifacts/link')
os.symlink('/proc/self/environ', '/artifacts/deep/environ')
import socket; socket.socket(socket.AF_UNIX).bind('/artifacts/pipe')
open('/artifacts/empty', 'wb').close()
open(b'/artifacts/\\xff\\n', 'w').close()
";
    let outcome = play(&python(), source);
    assert_eq!(outcome.ended, Ended::Exit(0), "{}", outcome.stderr.text);
    let seen: Vec<(&str, &str, usize)> = outcome
        .artifacts
        .iter()
        .map(|artifact| (artifact.name.as_str(), artifact.mime_type.as_str(), artifact.bytes.len()))
        .collect();
    assert_eq!(
        seen,
        [
            ("deep/er/a.csv", "text/plain", 4),
            ("empty", "text/plain", 0),
            ("fake.png", "image/gif", 26),
            ("plot.png", "image/png", 28)
        ]
    );
    let left: Vec<&str> = outcome.left_out.iter().map(|left| left.name.as_str()).collect();
    assert_eq!(left, ["deep/environ", "link", "pipe", "\u{fffd}\u{fffd}"]);
    let mut small = python();
    small.limits.artifact_files = 2;
    small.limits.artifact_bytes = 1 << 20;
    let many = "for name in 'abc': open(f'/artifacts/{name}', 'w').write('x')\nopen('/artifacts/d', 'w').write('x' * (2 << 20))";
    let outcome = play(&small, many);
    assert_eq!(outcome.artifacts.len(), 2);
    assert!(outcome.stderr.text.contains("No space left"), "{}", outcome.stderr.text);
}

fn node_runs_where_the_machine_has_it() {
    if !std::path::Path::new("/usr/bin/node").exists() {
        eprintln!("there is no node on this machine: nothing was shown");
        return;
    }
    let Ok(node) = strongest(Language::Node) else { return };
    if node.resources == Resources::RlimitsOnly {
        eprintln!(
            "node reserves more address space than a limit of each process can give: nothing was shown"
        );
        return;
    }
    assert_eq!(printed(&node, "console.log(1 + 1, process.getuid(), process.cwd())"), "2 1000 /work");
}

/// As an image that was unpacked: a folder with a shell, its libraries and nothing else.
fn a_folder_can_be_the_root() {
    let folder = tempfile::Builder::new().prefix("ringfence-root").tempdir_in("/tmp").unwrap();
    let open_to_all = |path: &std::path::Path| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).unwrap();
    };
    let root = folder.path().join("rootfs");
    for name in ["usr/bin", "usr/lib", "etc", "opt/tool", "proc", "sys", "work"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    open_to_all(folder.path());
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    std::fs::write(root.join("opt/tool/data"), "of the image").unwrap();
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    std::fs::write(root.join("etc/motd"), "hello").unwrap();
    std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
    let libraries = std::process::Command::new("ldd").arg("/usr/bin/bash").output().unwrap();
    let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
    std::fs::copy("/usr/bin/bash", root.join("usr/bin/bash")).unwrap();
    for path in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(path, to).unwrap();
    }
    let mut bash = strongest(Language::Bash).unwrap();
    bash.root = Root::Folder(folder.path().to_owned());
    let source = "echo *; read -r line < /opt/tool/data; echo $line; read -r line < /etc/motd; echo $line; \
                  while read -r line; do echo $line; done < /etc/passwd; echo x 2>/dev/null > /opt/tool/data || echo read-only";
    let said = printed(&bash, &format!("cd /; {source}"));
    assert!(!said.contains("sys ") && said.contains("opt") && said.contains("work"), "{said}");
    assert!(
        said.ends_with("of the image\nhello\nsandbox:x:1000:1000::/work:/usr/bin/bash\nread-only"),
        "{said}"
    );
    bash.root = Root::Folder("/nowhere".into());
    assert_eq!(try_run(&bash, "echo ran").unwrap_err().layer, "own_root");
}

/// Each layer is taken away in turn: refused by the kernel, or left out without a word.
fn a_layer_that_fails_refuses_the_run() {
    for start in [Start::Fork, Start::Exec] {
        for layer in Layer::ALL {
            let mut profile = python();
            profile.start = start;
            let refused =
                try_run(&profile.clone().dangerously_with_fault(layer, Fault::Refused), "print('ran')");
            let refused = refused.map(|outcome| outcome.stdout.text).unwrap_err();
            assert_eq!(refused.layer, layer.as_str(), "{start:?} {refused}");
            // What cannot be seen from outside is seen by nobody: Landlock, what is mounted, and a count of namespaces.
            if matches!(
                layer,
                Layer::Landlock | Layer::NoNestedNamespaces | Layer::OwnRoot | Layer::UserNamespace
            ) {
                continue;
            }
            let skipped = try_run(&profile.dangerously_with_fault(layer, Fault::Skipped), "print('ran')");
            let skipped = skipped.map(|outcome| outcome.stdout.text).unwrap_err();
            assert_eq!(skipped.layer, layer.as_str(), "{start:?} {skipped}");
        }
    }
}

/// What it heard, and when.
#[derive(Default)]
struct Recording {
    heard: Mutex<Vec<(Duration, String)>>,
    began: OnceLock<Instant>,
}

impl ringfence_sandbox::Watch for Recording {
    fn wrote(&self, _: Stream, bytes: &[u8]) {
        let at = self.began.get_or_init(Instant::now).elapsed();
        self.heard.lock().unwrap().push((at, String::from_utf8_lossy(bytes).into_owned()));
    }
}

#[async_trait::async_trait]
impl egress::Watch for Recording {
    async fn decided(&self, _: &egress::Decision) -> Result<(), egress::Unrecorded> {
        Err(egress::Unrecorded)
    }
}

fn output_is_heard_as_it_comes() {
    let watch = Arc::new(Recording::default());
    let outcome = block_on(async {
        let sandbox = Sandbox::new(python());
        let source = "import time\nprint('first')\ntime.sleep(0.4)\nprint('second')";
        let outcome =
            sandbox.run(Program::new(source), watch.clone(), CancellationToken::new()).await.unwrap();
        sandbox.close().await;
        outcome
    });
    let heard = watch.heard.lock().unwrap();
    let all: String = heard.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!((all.as_str(), outcome.stdout.text.as_str()), ("first\nsecond\n", "first\nsecond\n"));
    let second = heard.iter().find(|(_, text)| text.contains("second")).unwrap();
    assert!(second.0 >= Duration::from_millis(300), "{heard:?}");
}
