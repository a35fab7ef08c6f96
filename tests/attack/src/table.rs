//! The list itself: programs, and how each is shown to work where its wall is missing.

use ringfence_sandbox::Language::{self, Bash, Node, Python};
use ringfence_sandbox::Layer::{
    Landlock, NetworkNamespace, NoNestedNamespaces, OtherNamespaces, OwnRoot, Seccomp,
};

use crate::probe::{Control, Probe, Untried, Verdict};

macro_rules! probe {
    ($id:literal, $title:literal, $program:literal, $control:expr) => {
        Probe {
            id: $id,
            title: $title,
            language: Python,
            program: include_str!(concat!("../programs/", $program, ".py")),
            control: $control,
            needs_network: false,
        }
    };
}

/// The same attack by a program of its own in Bash, and in Node.
macro_rules! also {
    ($id:literal, $title:literal, $program:literal, $control:expr) => {{
        const BASH: &str = include_str!(concat!("../programs/", $program, ".sh"));
        const NODE: &str = include_str!(concat!("../programs/", $program, ".js"));
        [in_language(Bash, BASH, $id, $title, $control), in_language(Node, NODE, $id, $title, $control)]
    }};
}

const fn in_language(
    language: Language,
    program: &'static str,
    id: &'static str,
    title: &'static str,
    control: Control,
) -> Probe {
    Probe { id, title, language, program, control, needs_network: false }
}

const fn in_network(probe: Probe) -> Probe {
    Probe { needs_network: true, ..probe }
}

const fn both_in_network([one, other]: [Probe; 2]) -> [Probe; 2] {
    [in_network(one), in_network(other)]
}

const PROBES: &[Probe] = &[
    probe!("F02", "find the host's secrets", "f02_find_canaries", Control::Outside),
    probe!(
        "F04",
        "write what is read-only",
        "f04_write_read_only",
        Control::WithRights(&[Seccomp, NoNestedNamespaces, Landlock])
    ),
    probe!("F11", "device nodes", "f11_device_nodes", Control::Without(&[Seccomp, Landlock])),
    probe!("F12", "rights by executing", "f12_set_user_id", Control::OutsideAsUser),
    probe!("F14", "leave a chroot", "f14_chroot", Control::WithRights(&[Seccomp, NoNestedNamespaces])),
    probe!(
        "F19",
        "extended attributes",
        "f19_attributes",
        Control::WithRights(&[Seccomp, NoNestedNamespaces])
    ),
    probe!(
        "F22",
        "make protected files",
        "f22_protected_names",
        Control::None("outside it would write the host's own; F04's control shows writing")
    ),
    probe!("P01", "see the host's processes", "p01_processes", Control::Outside),
    probe!("P02", "signal the host's processes", "p02_signals", Control::Outside),
    probe!("P03", "look into processes", "p03_look_into_processes", Control::Without(&[Seccomp])),
    probe!("P09", "raise limits and priorities", "p09_raise_limits", Control::OutsideAsRoot),
    probe!("P12", "the host's shared memory", "p12_ipc", Control::Without(&[OtherNamespaces, OwnRoot])),
    probe!("P15", "what it is told of the machine", "p15_what_it_is_told", Control::Outside),
    probe!("K01", "new namespaces", "k01_namespaces", Control::WithRights(&[Seccomp, NoNestedNamespaces])),
    probe!(
        "K02",
        "enter namespaces",
        "k02_enter_namespaces",
        Control::WithRights(&[Seccomp, NoNestedNamespaces])
    ),
    probe!(
        "K03",
        "mounts (and K04)",
        "k03_mounts",
        Control::WithRights(&[Seccomp, NoNestedNamespaces, Landlock])
    ),
    probe!("K05", "the kernel's settings (and K18)", "k05_kernel_settings", Control::Outside),
    probe!(
        "K06",
        "forbidden calls (and K07, K08, K12, K16)",
        "k06_forbidden_calls",
        Control::WithRights(&[Seccomp, NoNestedNamespaces, OwnRoot])
    ),
    probe!("K11", "other architectures' calls", "k11_other_architectures", Control::Outside),
    probe!(
        "K14",
        "execute a file in memory",
        "k14_memory_file",
        Control::WithRights(&[Seccomp, NoNestedNamespaces])
    ),
    probe!("K17", "devices", "k17_devices", Control::Outside),
    probe!("K23", "debuggers", "k23_debuggers", Control::Outside),
    in_network(probe!("N01", "interfaces and routes", "n01_interfaces", Control::Outside)),
    in_network(probe!(
        "N02",
        "connect",
        "n02_connect",
        Control::Without(&[Seccomp, Landlock, NetworkNamespace])
    )),
    in_network(probe!(
        "N03",
        "names",
        "n03_names",
        Control::Without(&[Seccomp, Landlock, NetworkNamespace, OwnRoot])
    )),
    probe!("N05", "sockets of the host's services", "n05_sockets_of_services", Control::Outside),
    in_network(probe!(
        "N06",
        "families of sockets (and N07)",
        "n06_families",
        Control::WithRights(&[Seccomp, NoNestedNamespaces])
    )),
    in_network(probe!(
        "N10",
        "broadcast and multicast",
        "n10_everybody",
        Control::Without(&[Seccomp, Landlock, NetworkNamespace])
    )),
    in_network(probe!(
        "N12",
        "around a proxy",
        "n12_proxies",
        Control::Without(&[Seccomp, Landlock, NetworkNamespace])
    )),
    probe!("X01", "a child of the jail's own process", "x01_siblings", Control::Without(&[Seccomp])),
    probe!(
        "X09",
        "the gateway by its end of a socket",
        "x09_the_gateways_handle",
        Control::None("whoever made a socket is always known to the kernel; what its handle gives is tried")
    ),
];

/// What tells most, once more by programs in Bash and in Node, which reach for the same by ways of their own.
const IN_OTHER_LANGUAGES: &[[Probe; 2]] = &[
    also!("F02", "find the host's secrets", "f02_find_canaries", Control::Outside),
    also!("P01", "see the host's processes", "p01_processes", Control::Outside),
    also!("P02", "signal the host's processes", "p02_signals", Control::Outside),
    also!("K01", "new namespaces", "k01_namespaces", Control::Without(&[Seccomp, NoNestedNamespaces])),
    also!(
        "K03",
        "mounts (and K04)",
        "k03_mounts",
        Control::Without(&[Seccomp, NoNestedNamespaces, Landlock])
    ),
    also!("K05", "the kernel's settings (and K18)", "k05_kernel_settings", Control::Outside),
    also!("K17", "devices", "k17_devices", Control::Outside),
    both_in_network(also!(
        "N02",
        "connect",
        "n02_connect",
        Control::Without(&[Seccomp, Landlock, NetworkNamespace])
    )),
    both_in_network(also!(
        "N03",
        "names",
        "n03_names",
        Control::Without(&[Seccomp, Landlock, NetworkNamespace, OwnRoot])
    )),
    also!("N05", "sockets of the host's services", "n05_sockets_of_services", Control::Outside),
];

/// Every probe by programs in this language.
pub(crate) fn probes(language: Language) -> impl Iterator<Item = &'static Probe> {
    let all = PROBES.iter().chain(IN_OTHER_LANGUAGES.iter().flatten());
    all.filter(move |probe| probe.language == language)
}

/// What is in ATTACKS.md's list and is not tried, with the reason.
pub(crate) const UNTRIED: &[Untried] = &[
    Untried {
        id: "F06",
        title: "a bound folder with a mount in it",
        verdict: Verdict::NotApplicable,
        why: "a profile binds no folder of the operator's",
    },
    Untried {
        id: "F16",
        title: "a working folder of the request's choice",
        verdict: Verdict::NotApplicable,
        why: "a request has no such field",
    },
    Untried {
        id: "R07",
        title: "a decompression bomb as input",
        verdict: Verdict::NotApplicable,
        why: "input is files, never archives",
    },
];
