# The other end of the control socket was made by the gateway: the kernel gives out a handle on whoever did.
import fcntl
SO_PEERPIDFD = 77


def handle():
    return socket.socket(fileno=os.dup(3)).getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)


def number():
    handle_ = handle()
    fields = dict(line.split(":") for line in open("/proc/self/fdinfo/%d" % handle_))
    return fields["Pid"].strip() if int(fields["Pid"]) > 0 else False


attempt("the gateway's number", number)
for signal_ in (0,) if GIVEN["control"] else (0, 9):
    attempt("signal %d to the gateway" % signal_, lambda: call(424, handle(), signal_, 0, 0) >= 0)
attempt("a descriptor of the gateway's", lambda: call(438, handle(), 0, 0) >= 0)
for number_ in range(1, 12):
    # PIDFD_GET_*_NAMESPACE, and PIDFD_GET_INFO (include/uapi/linux/pidfd.h).
    attempt("namespace %d of the gateway" % number_, lambda: fcntl.ioctl(handle(), 0xFF00 | number_, 0) >= 0)
attempt("what the kernel tells of it", lambda: fcntl.ioctl(handle(), 0xC040FF0B, bytearray(b"\xff" + bytes(63))) >= 0)
attempt("a namespace of the gateway", lambda: call(308, handle(), 0x40000000) >= 0)
