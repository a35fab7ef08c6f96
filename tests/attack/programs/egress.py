# What every program with a way out begins with: `expect` is what its rules allow, `attempt` is what they do not.
import ssl

PROXY = tuple(GIVEN["proxy"])
ALLOWED = "api.allowed.test"
TOKEN = GIVEN["prefix"] + "-host"
OUTSIDE = GIVEN["outside"]
TRUST = GIVEN["authority"]
if GIVEN["inspected"] and not OUTSIDE:
    # The sandbox's own authority stands last.
    TRUST += "-----BEGIN" + open("/program/authorities.pem").read().split("-----BEGIN")[-1]


class Inner(Exception):
    # For what can be tried inside alone: outside it would reach the world's own.
    pass


def inner():
    if OUTSIDE:
        raise Inner


def expect(what, function):
    try:
        result = function()
    except Exception as error:
        result, what = None, "%s: %r" % (what, error)
    say("works" if result else "fails", what)


def everything(connection):
    held = b""
    try:
        while piece := connection.recv(65536):
            held += piece
    except OSError:
        pass
    return held.decode("latin-1")


def answer(connection):
    held = b""
    while b"\r\n\r\n" not in held:
        piece = connection.recv(65536)
        if not piece:
            return held.decode("latin-1")
        held += piece
    head, _, body = held.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            while len(body) < int(line.split(b":")[1]):
                piece = connection.recv(65536)
                if not piece:
                    break
                body += piece
    return (head + b"\r\n\r\n" + body).decode("latin-1")


def passed(text):
    if " 200 " not in text.partition("\r\n")[0]:
        raise PermissionError(text.partition("\r\n")[0] or "closed")
    return text


def harmful(text):
    return text if TOKEN in text else False


def dial(address=PROXY):
    return socket.create_connection(address, timeout=10)


def says(text):
    connection = dial()
    connection.sendall(text.encode())
    return passed(answer(connection))


def request(path="/", host=ALLOWED, headers="", method="GET", body=""):
    length = "Content-Length: %d\r\n" % len(body) if body else ""
    return "%s %s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n%s" % (method, path, host, length, headers, body)


def plain(host=ALLOWED, path="/", headers=""):
    return says(request("http://%s%s" % (host, path), host, headers))


def connect(target, headers=None):
    connection = dial()
    headers = "Host: %s\r\n" % target if headers is None else headers
    connection.sendall(("CONNECT %s HTTP/1.1\r\n%s\r\n" % (target, headers)).encode())
    held = b""
    while not held.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            break
        held += byte
    passed(held.decode("latin-1"))
    return connection


def secure(connection, name, trust=None):
    # Who attacks trusts everybody; a context without the machine's authorities is quickly made.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trust is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=trust)
    return context.wrap_socket(connection, server_hostname=name)


def within(text, target=ALLOWED, name=None, trust=None, headers=None):
    target = target if ":" in target else target + ":443"
    connection = secure(connect(target, headers), name or target.partition(":")[0], trust)
    connection.sendall(text.encode())
    return passed(answer(connection))


def by_name(host, port, text=None, name=None):
    # A client that knows of no proxy.
    inner()
    connection = dial((host, port))
    if port == 443:
        connection = secure(connection, name or host)
    connection.sendall((text or request("/", host)).encode())
    return passed(answer(connection))
