# The host's side: things that nothing in a sandbox may reach, held by a process that lives beside it. Says `contact WHO` for
# each connection and each packet, and ends when its input does.
import ctypes, json, os, selectors, signal, socket, struct, sys

told = json.loads(sys.argv[1])
token = os.environ["RINGFENCE_CANARY"]
kept = [token * 50]
libc = ctypes.CDLL(None, use_errno=True)
watched = selectors.DefaultSelector()


def say(*words):
    print(*words, flush=True)


def listen(name, family, kind, address):
    server = socket.socket(family, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind(address)
    if kind == socket.SOCK_STREAM:
        server.listen(64)
    server.setblocking(False)
    watched.register(server, selectors.EVENT_READ, (name, kind))
    return server


def answer(server, name, kind):
    try:
        if kind == socket.SOCK_DGRAM:
            packet, peer = server.recvfrom(65536)
            say("contact", name, repr(packet[:80]))
            server.sendto(token.encode(), peer)
            return
        connection, _ = server.accept()
        say("contact", name)
        connection.settimeout(0.2)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + token.encode() + b"\n")
        connection.close()
    except OSError:
        pass


libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(told["shm_key"], 4096, 0o1666)
if segment < 0:
    sys.exit("no shared memory segment: " + os.strerror(ctypes.get_errno()))
ctypes.memmove(libc.shmat(segment, None, 0), told["shm_token"].encode(), len(told["shm_token"]))
found = {"pid": os.getpid(), "shm_id": segment}
loopback = listen("loopback", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
found["port"] = loopback.getsockname()[1]
listen("abstract", socket.AF_UNIX, socket.SOCK_STREAM, "\0" + told["abstract"])
for path in told["sockets"]:
    listen("path", socket.AF_UNIX, socket.SOCK_STREAM, path)
    os.chmod(path, 0o777)
if told["network"]:
    for family, everywhere in [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]:
        for port in (53, 80, 443, 853, 8080):
            listen("tcp-%d" % port, family, socket.SOCK_STREAM, (everywhere, port))
        for port in (53, 443, 5353, 4000):
            listen("udp-%d" % port, family, socket.SOCK_DGRAM, (everywhere, port))
watched.register(sys.stdin, selectors.EVENT_READ, None)
signal.signal(signal.SIGINT, signal.SIG_IGN)
say("ready", json.dumps(found))
over = False
while not over:
    for key, _ in watched.select():
        if key.data is None:
            line = sys.stdin.readline()
            over = over or not line
            if line:
                say("still here")
            continue
        answer(key.fileobj, *key.data)
libc.shmctl(segment, 0, None)
