# The interpreter that is forked into sandboxes. It has loaded its modules once, runs no program itself, and waits to be told
# which namespaces to fork into. The fork confines itself as `confine.rs` does it, in the same order, before anybody's program
# is known; the gateway looks at what is in force before it hands one over.
#
# Each page that a fork or its parent writes to is copied: whatever can be made ready once is, here and by being rehearsed.
import ctypes, gc, json, os, random, select
from _socket import MSG_CMSG_CLOEXEC, SCM_RIGHTS, SOL_SOCKET, socket
from struct import Struct

libc = ctypes.CDLL(None, use_errno=True)
setns, prctl, syscall, wait4 = libc.setns, libc.prctl, libc.syscall, libc.wait4

EINVAL = 22
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_READ, PR_CAPBSET_DROP = 4, 22, 23, 24
PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 28, 38, 47


class Refused(Exception):
    pass


def check(layer, result):
    if result < 0:
        raise Refused(layer, os.strerror(ctypes.get_errno()))


def perform(steps):
    for layer, function, arguments in steps:
        if function(*arguments) < 0:
            raise Refused(layer, os.strerror(ctypes.get_errno()))


# Of the namespaces of the user, mounts, network, IPC, host name and cgroups, in the order in which they come.
LAYERS = ["user_namespace", "own_root", "network_namespace"] + ["other_namespaces"] * 3


def become_nobody(uid):
    layer = "user_namespace"
    yield layer, libc.setresgid, (uid, uid, uid)
    yield layer, libc.setresuid, (uid, uid, uid)
    # The files in `/proc/self` belong to root where nobody may look into the process; a program opens its own.
    yield layer, prctl, (PR_SET_DUMPABLE, 1, 0, 0, 0)
    yield layer, libc.setsid, ()


def known_capabilities():
    # The kernel numbers them without a gap.
    capability = 0
    while prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
        capability += 1
    if not capability or ctypes.get_errno() != EINVAL:
        raise Refused("no_privileges", "PR_CAPBSET_READ")
    return range(capability)


def give_up_privileges(securebits):
    layer = "no_privileges"
    for capability in known_capabilities():
        yield layer, prctl, (PR_CAPBSET_DROP, capability, 0, 0, 0)
    yield layer, prctl, (PR_CAP_AMBIENT, 4, 0, 0, 0)  # PR_CAP_AMBIENT_CLEAR_ALL
    yield layer, prctl, (PR_SET_SECUREBITS, securebits, 0, 0, 0)
    version = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    yield layer, libc.capset, (version, (ctypes.c_uint32 * 6)())
    yield layer, prctl, (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def before_landlock(told):
    yield from become_nobody(told["uid"])
    yield "own_root", libc.chdir, (told["work"].encode(),)
    yield "no_privileges", syscall, (told["keyctl"], 1, 0)  # KEYCTL_JOIN_SESSION_KEYRING
    for limit, most in told["limits"]:
        yield "limits", libc.setrlimit, (limit, (ctypes.c_uint64 * 2)(most, most))
    if told["no_privileges"]:
        yield from give_up_privileges(told["securebits"])


class Filter(ctypes.Structure):  # struct sock_fprog
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def filters(told):
    for steps in map(bytes.fromhex, told["filters"]):
        program = Filter(len(steps) // 8, steps)
        yield "seccomp", prctl, (PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0)  # SECCOMP_MODE_FILTER


def confine(steps, namespaces, rules):
    for layer, namespace in zip(LAYERS, namespaces, strict=True):
        check(layer, setns(namespace, 0))
    before, after = steps
    perform(before)
    if rules is not None:
        check("landlock", syscall(446, rules, 0))  # landlock_restrict_self
    perform(after)


def warm_up():
    # What every program does, so that its pages are the fork's own before one comes. Nothing is shown.
    attempt("values = [number * number for number in range(5)]\nprint('%s' % sum(values), {'a': 1}, file=nowhere)\nprint(end='')", {"nowhere": NOWHERE})


class Nowhere:
    def write(self, text):
        pass


NOWHERE = Nowhere()


def reseed():
    # A fork of a generator gives the numbers of its parent. `random` is seeded anew by the interpreter itself.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def become_program(steps, namespaces, rules, control, out, err):
    try:
        confine(steps, namespaces, rules)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(control, 3, inheritable=False)
        os.closerange(4, 1 << 20)
        reseed()
        warm_up()
    except Refused as refused:
        say(control, b"X", 0, "\0".join(refused.args).encode())
        _exit(1)
    except BaseException as error:
        say(control, b"X", 0, ("jail\0" + repr(error)).encode())
        _exit(1)
    say(3, b"R")
    serve(3)


# What is said to the gateway beside refusals: its kind, and the sandbox's number.
FORKED = Struct("<cQ").pack
ENDED = Struct("<cQiQQ").pack
HANDLE = Struct("i").pack
NUMBER = Struct("<Q").unpack
STATUS = ctypes.c_int()
USED = (ctypes.c_long * 18)()  # struct rusage
AT_STATUS, AT_USED = ctypes.byref(STATUS), ctypes.byref(USED)


def fork(steps, has_rules, number, descriptors, talk, children):
    check("pid_namespace", setns(descriptors[0], 0))
    pid = os.fork()
    if pid == 0:
        try:
            # What else runs is nothing that a program may find in its memory.
            children.clear()
            rules = descriptors[7] if has_rules else None
            become_program(steps, descriptors[1:7], rules, *descriptors[-3:])
        finally:
            _exit(1)
    handle = os.pidfd_open(pid)
    children[handle] = pid, number
    talk.sendmsg((FORKED(b"F", number),), ((SOL_SOCKET, SCM_RIGHTS, HANDLE(handle)),))
    return handle


def bury(pid, number, talk):
    check("jail", wait4(pid, AT_STATUS, 0, AT_USED))
    seconds, micros, system_seconds, system_micros, resident = USED[:5]
    cpu_us = (seconds + system_seconds) * 1000000 + micros + system_micros
    talk.send(ENDED(b"E", number, os.waitstatus_to_exitcode(STATUS.value), cpu_us, resident * 1024))


def refuse(talk, layer, reason, number=None):
    talk.send(json.dumps({"refused": {"layer": layer, "reason": reason}, "number": number}).encode())


def rehearse():
    # The interpreter rewrites code that runs often, and finds functions of libraries when they are first called.
    for _ in range(20):
        perform([("", libc.getppid, ()), ("", prctl, (PR_CAPBSET_READ, 0, 0, 0, 0))])
        warm_up()


def main():
    talk = socket(fileno=int(sys.argv[1]))
    told = json.loads(sys.argv[2])
    sys.argv = [NAME]
    # For this process alone: the functions that it calls are found at its start, and not in each fork.
    del os.environ["LD_BIND_NOW"]
    see_packages()
    import traceback, linecache  # what an error needs
    for module in told["modules"]:
        try:
            __import__(module)
        except Exception as error:
            refuse(talk, "preload", "module `%s` cannot be loaded: %s" % (module, error))
            _exit(1)
    try:
        steps = list(before_landlock(told)), list(filters(told))
    except Refused as refused:
        refuse(talk, *refused.args)
        _exit(1)
    has_rules = told["landlock"]
    del told
    # Woken by handles, and not by signals: a program can make those by stopping and going on.
    poll = select.poll()
    own = talk.fileno()
    poll.register(own, select.POLLIN)
    rehearse()
    gc.collect()
    gc.freeze()
    children = {}
    talk.send(b'{"up":true}')
    while True:
        ready = [fd for fd, _ in poll.poll()]
        for handle in ready:
            if handle != own:
                # First of all: its sandbox is not gone before.
                bury(*children.pop(handle), talk)
                poll.unregister(handle)
                os.close(handle)
        if own not in ready:
            continue
        message, handed_over, _, _ = talk.recvmsg(8, 256, MSG_CMSG_CLOEXEC)
        if not message:
            _exit(0)
        number, = NUMBER(message)
        descriptors = memoryview(handed_over[0][2]).cast("i").tolist()
        try:
            poll.register(fork(steps, has_rules, number, descriptors, talk, children), select.POLLIN)
        except (Refused, OSError) as error:
            refuse(talk, "pid_namespace", str(error), number)
        for descriptor in descriptors:
            os.close(descriptor)


main()
