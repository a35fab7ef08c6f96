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


def status(field):
    with open("/proc/self/status") as text:
        return next(line.split(":")[1].split()[0] for line in text if line.startswith(field + ":"))


def families():
    opened = []
    for family in range(47):
        if family == socket.AF_UNIX:
            continue
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            try:
                socket.socket(family, kind).close()
                opened.append(family)
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
    "HOME", "LANG", "LC_ALL", "MKL_NUM_THREADS", "MPLBACKEND", "MPLCONFIGDIR", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "PATH", "TMPDIR",
}

probe("host_files", lambda: any(map(os.path.exists, ["/etc/shadow", "/etc/hostname", "/root", "/home", "/sys", "/boot", "/var/log"])))
probe("host_processes", lambda: sum(name.isdigit() for name in os.listdir("/proc")) > 3)
probe("host_environment", lambda: set(os.environ) - ENVIRONMENT)
# Input and outputs, the driver's own, and the one of the listing itself.
probe("inherited_descriptors", lambda: len(os.listdir("/proc/self/fd")) > 5)
probe("write_usr", lambda: opens("/usr/attack", "wb"))
probe("write_program", lambda: opens("/program/attack", "wb"))
probe("init_memory", lambda: opens("/proc/1/mem"))
probe("kernel_settings", lambda: os.path.exists("/proc/sys") or os.path.exists("/proc/kcore"))
probe("block_device", lambda: os.mknod("/work/device", stat.S_IFBLK | 0o600, os.makedev(8, 0)) is None)
probe("mount", lambda: libc.mount(b"tmpfs", b"/work", b"tmpfs", 0, None) == 0)
probe("unshare_user", lambda: libc.unshare(0x10000000) == 0)
probe("chroot", lambda: libc.chroot(b"/work") == 0)
probe("ptrace_init", lambda: libc.ptrace(16, 1, 0, 0) == 0)
probe("host_name", lambda: libc.sethostname(b"x", 1) == 0)
probe("clock", lambda: libc.adjtimex(ctypes.create_string_buffer(b"\x01" + b"\0" * 511)) >= 0)
probe("sockets", families)
probe("interfaces", lambda: [line for line in open("/proc/self/net/dev").readlines()[2:] if line.split(":")[0].strip() != "lo"])
probe("capabilities", lambda: any(int(status(name), 16) for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]))
probe("new_privileges", lambda: status("NoNewPrivs") != "1")
probe("no_filter", lambda: status("Seccomp") != "2")
probe("root_user", lambda: 0 in (os.getuid(), os.geteuid(), os.getgid()))
if platform.machine() == "x86_64":
    # io_uring, bpf, perf_event_open, userfaultfd, keyctl, process_vm_readv, open_by_handle_at, kexec_load, init_module, setns
    probe("kernel_surface", calls(425, 321, 298, 323, 250, 310, 304, 246, 175, 308))
