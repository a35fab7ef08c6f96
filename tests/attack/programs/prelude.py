# What every probe begins with. It says `reached WHAT` where an attack works, `refused WHAT` where not, and `tried` at its end.
import ctypes, errno, json, os, socket, struct, sys, time

GIVEN = json.loads(GIVEN_TEXT)
libc = ctypes.CDLL(None, use_errno=True)


def say(*words):
    print(*words, flush=True)


def attempt(what, function):
    try:
        result = function()
    except Exception as error:
        say("refused", what, "-", type(error).__name__, errno.errorcode.get(getattr(error, "errno", None) or 0, ""))
        return None
    if result is False or result is None:
        say("refused", what)
        return None
    say("reached", what)
    if isinstance(result, (str, bytes)):
        say(result)
    return result


def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(value) if isinstance(value, int) else value for value in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def asks(number, *arguments):
    # Whether the kernel looks at the call at all: what it thinks of harmless arguments is its own affair.
    def function():
        try:
            call(number, *arguments)
        except OSError as error:
            return error.errno not in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT)
        return True
    return function


def succeeds(number, *arguments):
    return lambda: call(number, *arguments) >= 0


def in_child(function):
    # A child does it, so that what it changes is not this process.
    def attempted():
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(0 if function() not in (None, False) else 1)
            except BaseException:
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0
    return attempted


def exists(path):
    return lambda: os.path.lexists(path)


def reads(path, count=65536):
    def function():
        with open(path, "rb") as file:
            text = file.read(count).decode("utf-8", "replace")
        return text if text else False
    return function


def writes(path, text="x"):
    def function():
        with open(path, "w") as file:
            file.write(text)
        return True
    return function


if GIVEN["rights"]:
    # A control gets the rights of a namespace of its own, which nothing in a sandbox may have.
    own_user, own_group = os.getuid(), os.getgid()
    libc.unshare(0x10000000 | 0x20000 | 0x4000000 | 0x8000000 | 0x40000000 | 0x2000000)
    for name, own in (("uid", own_user), ("gid", own_group)):
        try:
            writes("/proc/self/%s_map" % name, "%d %d 1" % (own, own))()
        except OSError:
            pass
