# The sandbox attacks itself. One line a probe: `held NAME`, or `hole NAME`.
import ctypes, os, platform, socket, stat

libc = ctypes.CDLL(None, use_errno=True)


def probe(name, attempt):
    try:
        succeeded = attempt()
    except (OSError, AttributeError):
        succeeded = False
    print("hole" if succeeded else "held", name)


def opens(path, mode="rb"):
    with open(path, mode):
        return True


def writable(path):
    # Opened, and nothing written.
    try:
        return opens(path, "r+b")
    except OSError:
        return False


def status(field):
    with open("/proc/self/status") as text:
        return next((line.split(":")[1].split()[0] for line in text if line.startswith(field + ":")), None)


def capabilities(*names):
    # A set that is not shown counts as held.
    return any(int(status(name) or "1", 16) for name in names)


# Unix sockets in any case; where there is a way out also what speaks to it: TCP, names over UDP, and the list of interfaces.
TYPES = {1: "stream", 2: "datagram", 3: "raw", 5: "sequence"}
KNOWN = {(2, 1), (2, 2), (10, 1), (10, 2), (16, 2), (16, 3)} if EGRESS else set()


def sockets():
    opened = []
    for family in range(47):
        for kind in TYPES:
            if family == socket.AF_UNIX or (family, kind) in KNOWN:
                continue
            try:
                socket.socket(family, kind).close()
                opened.append((family, kind))
            except OSError:
                pass
    return opened


def calls(*numbers):
    # Harmless arguments: whatever the kernel says, it is not ENOSYS or EPERM where the call is let through.
    def attempt():
        for number in numbers:
            ctypes.set_errno(0)
            if libc.syscall(number, -1, 0, 0, 0, 0, 0) >= 0 or ctypes.get_errno() not in (1, 38):
                return True
    return attempt


ENVIRONMENT = {
    "HOME", "LANG", "LC_ALL", "MATPLOTLIBRC", "MKL_NUM_THREADS", "MPLBACKEND", "MPLCONFIGDIR", "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS", "PATH", "TMPDIR", *OPERATORS,
}
if EGRESS:
    ENVIRONMENT |= {"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"}
    ENVIRONMENT |= {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS"}

probe("host_files", lambda: any(map(os.path.exists, ["/etc/shadow", "/etc/hostname", "/root", "/home", "/boot", "/var/log"])))
probe("sys_is_there", lambda: os.path.exists("/sys"))
probe("sys_shows_something", lambda: os.path.exists("/sys") and os.listdir("/sys"))
probe("host_processes", lambda: sum(name.isdigit() for name in os.listdir("/proc")) > 3)
probe("host_environment", lambda: set(os.environ) - ENVIRONMENT)
# Input and outputs, the driver's own, and the one of the listing itself.
probe("inherited_descriptors", lambda: len(os.listdir("/proc/self/fd")) > 5)
probe("write_usr", lambda: opens("/usr/attack", "wb"))
probe("write_program", lambda: opens("/program/attack", "wb"))
probe("init_memory", lambda: opens("/proc/1/mem"))
probe("kernel_settings", lambda: os.path.exists("/proc/sys") or os.path.exists("/proc/kcore"))
probe("kernel_settings_written", lambda: any(map(writable, ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches"])))
probe("kernel_memory", lambda: os.path.exists("/proc/kcore") or os.path.exists("/dev/mem"))
# The release that every gVisor says it has.
probe("host_kernel", lambda: os.uname().release != "4.4.0")
probe("block_device", lambda: os.mknod("/work/device", stat.S_IFBLK | 0o600, os.makedev(8, 0)) is None)
probe("mount", lambda: libc.mount(b"tmpfs", b"/work", b"tmpfs", 0, None) == 0)
probe("unshare_user", lambda: libc.unshare(0x10000000) == 0)
probe("chroot", lambda: libc.chroot(b"/work") == 0)
probe("ptrace_init", lambda: libc.ptrace(16, 1, 0, 0) == 0)
probe("host_name", lambda: libc.sethostname(b"x", 1) == 0)
probe("clock", lambda: libc.adjtimex(ctypes.create_string_buffer(b"\x01" + b"\0" * 511)) >= 0)
probe("sockets", sockets)
probe("interfaces", lambda: [line for line in open("/proc/self/net/dev").readlines()[2:] if line.split(":")[0].strip() != "lo"])
probe("capabilities", lambda: capabilities("CapInh", "CapPrm", "CapEff", "CapBnd"))
probe("ambient_capabilities", lambda: capabilities("CapAmb"))
# PR_GET_NO_NEW_PRIVS
probe("new_privileges_shown", lambda: status("NoNewPrivs") != "1")
probe("new_privileges", lambda: libc.prctl(39, 0, 0, 0, 0) != 1)
probe("no_filter", lambda: status("Seccomp") != "2")
probe("root_user", lambda: 0 in (os.getuid(), os.geteuid(), os.getgid()))
if platform.machine() == "x86_64":
    # io_uring, bpf, perf_event_open, userfaultfd, keyctl, process_vm_readv, open_by_handle_at, kexec_load, init_module, setns
    probe("kernel_surface", calls(425, 321, 298, 323, 250, 310, 304, 246, 175, 308))
