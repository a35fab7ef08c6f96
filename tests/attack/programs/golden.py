# What a program finds, in full: each part of it is compared with a table.
import re, resource, stat


def part(name, lines):
    say("== " + name)
    for line in lines:
        say(line)


def mounts():
    for line in open("/proc/self/mountinfo"):
        before, after = line.rstrip().split(" - ")
        fields = before.split()
        kind, _, options = after.split(" ", 2)
        options = re.sub(r"(size|nr_inodes|uid|gid)=[0-9a-z]+", r"\1=N", options)
        options = re.sub(r"/proc/self/fd/[0-9]+", "/proc/self/fd/N", options)
        options = re.sub(r",(inode64|redirect_dir=\w+|index=\w+|metacopy=\w+|xino=\w+|uuid=\w+|nouserxattr|userxattr)", "", options)
        root = fields[3] if kind in ("tmpfs", "proc", "overlay") else fields[3].replace("/null", "/DEVICE")
        yield " ".join([fields[4], "root=" + root, fields[5], "tags=" + ",".join(fields[6:]), kind, options])


def devices():
    for top, _, names in sorted(os.walk("/dev")):
        yield top + "/"
        for name in sorted(names):
            path = os.path.join(top, name)
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                yield "%s -> %s" % (path, os.readlink(path))
            else:
                yield "%s %s %d:%d" % (path, stat.filemode(found.st_mode)[0], os.major(found.st_rdev), os.minor(found.st_rdev))


def kind_of(fd):
    return re.sub(r"[0-9]+", "N", os.readlink("/proc/self/fd/%d" % fd))


def descriptors():
    import fcntl
    for fd in range(65536):
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFD)
        except OSError:
            continue
        yield "%d %s%s" % (fd, kind_of(fd), " close-on-exec" if flags & 1 else "")


def environment():
    return ["%s=%s" % pair for pair in sorted(os.environ.items())]


# Would end, stop or wait for this process, or take its memory away; tried by others, or known to be let through.
SKIPPED = {15: "rt_sigreturn", 34: "pause", 35: "nanosleep", 56: "clone", 57: "fork", 58: "vfork", 60: "exit", 61: "wait4", 62: "kill", 130: "rt_sigsuspend", 153: "vhangup", 200: "tkill", 219: "restart_syscall", 230: "clock_nanosleep", 231: "exit_group", 234: "tgkill", 247: "waitid", 270: "pselect6", 271: "ppoll", 7: "poll", 23: "select", 169: "reboot", 435: "clone3", 22: "pipe"}


def verdict(number):
    pid = os.fork()
    if pid == 0:
        ctypes.set_errno(0)
        os.close(2)
        result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
        code = 0 if result >= 0 else ctypes.get_errno()
        os._exit({errno.ENOSYS: 1, errno.EPERM: 2}.get(code, 0))
    deadline = time.monotonic() + 2
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return "waits"
        time.sleep(0.0005)
    if os.WIFSIGNALED(status):
        return "signal"
    return ["through", "absent", "forbidden"][os.WEXITSTATUS(status)] if os.WEXITSTATUS(status) < 3 else "?"


def ranges(pairs):
    # Runs of numbers with one verdict, as one line.
    first = last = word = None
    for number, found in pairs:
        if found == word and number == last + 1:
            last = number
            continue
        if word:
            yield "%s %s" % (first if first == last else "%d-%d" % (first, last), word)
        first = last = number
        word = found
    yield "%s %s" % (first if first == last else "%d-%d" % (first, last), word)


def calls():
    numbers = list(range(0, 471)) + list(range(500, 1001)) + [0x7FFFFFFF]
    if GIVEN["fast"]:
        numbers = list(range(0, 471)) + [500, 1000, 0x7FFFFFFF]
    yield from ranges((number, "skipped" if number in SKIPPED else verdict(number)) for number in numbers)


def sockets():
    for family in range(47):
        seen = set()
        for kind in (1, 2, 3, 4, 5, 6, 10):
            for protocol in (0, 1, 6, 17, 58, 132, 255):
                ctypes.set_errno(0)
                result = libc.socket(family, kind, protocol)
                if result >= 0:
                    os.close(result)
                    seen.add("made")
                else:
                    seen.add(errno.errorcode[ctypes.get_errno()])
        yield "%d %s" % (family, " ".join(sorted(seen)))


def status():
    wanted = ("Uid", "Gid", "Groups", "NStgid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Threads")
    for line in open("/proc/self/status"):
        if line.split(":")[0] in wanted:
            yield " ".join(line.split())
    yield "uid_map " + " ".join(re.sub(r"^(\S+) \S+ ", r"\1 N ", " ".join(line.split())) for line in open("/proc/self/uid_map"))
    yield "setgroups " + open("/proc/self/setgroups").read().strip()
    for option, name in ((3, "dumpable"), (7, "keep_capabilities"), (27, "secure_bits"), (37, "child_subreaper"), (39, "no_new_privileges")):
        value = ctypes.c_int()
        result = libc.prctl(option, ctypes.byref(value) if option == 37 else 0, 0, 0, 0)
        yield "%s %d" % (name, value.value if option == 37 else result)
    yield "umask %o" % os.umask(0o77)
    yield "host name " + socket.gethostname()
    yield "session is its own %s" % (os.getsid(0) in (os.getpid(), 1, 2) and os.getpgid(0) in (os.getpid(), 1, 2))
    yield "working folder " + os.getcwd()


def limits():
    for name in sorted(name for name in dir(resource) if name.startswith("RLIMIT_")):
        if name in ("RLIMIT_OFILE",):
            continue
        soft, hard = resource.getrlimit(getattr(resource, name))
        # What the profile does not name is the machine's.
        named = {"RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO"}
        if name in named:
            yield "%s %s %s" % (name, soft, hard)


def kinds_of_process_files():
    return sorted(name for name in os.listdir("/proc") if not name.isdigit())


PARTS = dict(mounts=mounts, devices=devices, descriptors=descriptors, environment=environment, status=status, limits=limits, proc=kinds_of_process_files, root=lambda: sorted(os.listdir("/")), calls=calls, sockets=sockets)
part(GIVEN["part"], PARTS[GIVEN["part"]]())
