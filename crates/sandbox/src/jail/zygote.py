# The interpreter that is forked into sandboxes. It has loaded its modules once, runs no program itself, and waits to be told
# which namespaces to fork into. The fork confines itself as `confine.rs` does it, in the same order, before anybody's program
# is known; the gateway looks at what is in force before it hands one over.
import ctypes, gc, io, json, os, random, resource, select, socket

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    pass


def check(layer, result):
    if result < 0:
        raise Refused(layer, os.strerror(ctypes.get_errno()))


# Of the namespaces of the user, mounts, network, IPC, host name and cgroups, in the order in which they come.
LAYERS = ["user_namespace", "own_root", "network_namespace"] + ["other_namespaces"] * 3


def enter(layers, namespaces):
    for layer, namespace in zip(layers, namespaces, strict=True):
        check(layer, libc.setns(namespace, 0))


def become_nobody(uid):
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # The files in `/proc/self` belong to root where nobody may look into the process; a program opens its own.
    check("user_namespace", libc.prctl(4, 1, 0, 0, 0))  # PR_SET_DUMPABLE
    os.setsid()


def give_up_privileges(told):
    layer = "no_privileges"
    for capability in range(64):
        if libc.prctl(24, capability, 0, 0, 0) < 0 and ctypes.get_errno() != 22:  # PR_CAPBSET_DROP, EINVAL
            raise Refused(layer, "PR_CAPBSET_DROP")
    check(layer, libc.prctl(47, 4, 0, 0, 0))  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL
    check(layer, libc.prctl(28, told["securebits"], 0, 0, 0))  # PR_SET_SECUREBITS
    none = (ctypes.c_uint32 * 6)()
    check(layer, libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), none))  # _LINUX_CAPABILITY_VERSION_3
    check(layer, libc.prctl(38, 1, 0, 0, 0))  # PR_SET_NO_NEW_PRIVS


class Filter(ctypes.Structure):  # struct sock_fprog
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def confine(told, filters, namespaces, rules):
    enter(LAYERS, namespaces)
    become_nobody(told["uid"])
    os.chdir(told["work"])
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    check("no_privileges", libc.syscall(told["keyctl"], 1, 0))  # KEYCTL_JOIN_SESSION_KEYRING
    for limit, most in told["limits"]:
        resource.setrlimit(limit, (most, most))
    if told["no_privileges"]:
        give_up_privileges(told)
    if told["landlock"]:
        check("landlock", libc.syscall(446, rules, 0))  # landlock_restrict_self
    for steps in filters:
        program = Filter(len(steps) // 8, steps)
        check("seccomp", libc.prctl(22, 2, ctypes.byref(program), 0, 0))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def warm_up():
    # Touches what every program does, so that its pages are the fork's own before one comes.
    shown, sys.stdout = sys.stdout, io.TextIOWrapper(io.BytesIO(), write_through=True)
    attempt("values = [number * number for number in range(50)]\nprint(1, sum(values), {'a': 1}, '%s' % values)", {})
    sys.stdout = shown


def reseed():
    # A fork of a generator gives the numbers of its parent. `random` is seeded anew by the interpreter itself.
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def become_program(told, filters, namespaces, rules, control, out, err):
    try:
        confine(told, filters, namespaces, rules)
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


def fork(told, filters, number, descriptors, talk, children):
    namespaces, rest = descriptors[1:7], descriptors[7:]
    rules = rest.pop(0) if told["landlock"] else -1
    control, out, err = rest
    enter(["pid_namespace"], descriptors[:1])
    pid = os.fork()
    if pid == 0:
        try:
            # What else runs is nothing that a program may find in its memory.
            children.clear()
            become_program(told, filters, namespaces, rules, control, out, err)
        finally:
            _exit(1)
    handle = os.pidfd_open(pid)
    children[handle] = pid, number
    socket.send_fds(talk, [json.dumps({"forked": number}).encode()], [handle])
    return handle


def bury(pid, number, talk):
    _, status, used = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    cpu_us = int((used.ru_utime + used.ru_stime) * 1e6)
    talk.send(json.dumps({"ended": number, "code": code, "cpu_us": cpu_us, "memory_peak_bytes": used.ru_maxrss * 1024}).encode())


def main():
    talk = socket.socket(fileno=int(sys.argv[1]))
    told = json.loads(sys.argv[2])
    sys.argv = [NAME]
    filters = [bytes.fromhex(steps) for steps in told["filters"]]
    see_packages()
    import traceback, linecache  # what an error needs
    for module in told["modules"]:
        try:
            __import__(module)
        except Exception as error:
            reason = "module `%s` cannot be loaded: %s" % (module, error)
            talk.send(json.dumps({"refused": {"layer": "preload", "reason": reason}}).encode())
            _exit(1)
    # Woken by handles, and not by signals: a program can make those by stopping and going on.
    poll = select.poll()
    poll.register(talk, select.POLLIN)
    warm_up()
    gc.collect()
    gc.freeze()
    children = {}
    talk.send(b'{"up":true}')
    while True:
        ready = {fd for fd, _ in poll.poll()}
        for handle in ready & children.keys():
            poll.unregister(handle)
            os.close(handle)
            bury(*children.pop(handle), talk)
        if talk.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(talk, 4096, 16, socket.MSG_CMSG_CLOEXEC)
        if not message:
            _exit(0)
        number = json.loads(message)["fork"]
        try:
            poll.register(fork(told, filters, number, descriptors, talk, children), select.POLLIN)
        except (Refused, OSError) as error:
            talk.send(json.dumps({"refused": {"layer": "pid_namespace", "reason": str(error)}, "number": number}).encode())
        for descriptor in descriptors:
            os.close(descriptor)


main()
