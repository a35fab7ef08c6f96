expect("another case, and a dot at the end", lambda: within(request(), "API.Allowed.Test.:443", ALLOWED, TRUST))
SPELLED = {
    "a NUL": "evil.test\0.allowed.test",
    "a percent-encoded NUL": "evil.test%00.allowed.test",
    "a tab": "evil.test\t.allowed.test",
    "a space": "evil.test .allowed.test",
    "a line feed": "evil.test\n.allowed.test",
    "a line's end": "evil.test\r\n.allowed.test",
    "a full-width dot": "api\uff0eallowed.test",
    "an ideographic stop": "api\u3002allowed.test",
    "a user name": "api.allowed.test@evil.test",
    "a like ending": "evil-allowed.test",
    "a like beginning": "api.allowed.test.evil.test",
    "a look-alike": "xn--pi-6kc.allowed.test",
    "a name of more than 253 bytes": "a." * 130 + "allowed.test",
    "a port in between": "evil.test:443.allowed.test",
    "a slash": "evil.test/.allowed.test",
}
for what, host in SPELLED.items():
    attempt("CONNECT with " + what, lambda: within(request(), host + ":443", ALLOWED, headers=""))
    attempt("plain HTTP with " + what, lambda: says(request("http://%s/" % host)))


def ask(name):
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(0.3)
    client.sendto(b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + labels + b"\0\0\x01\0\x01", ("127.0.0.1", 53))
    return ".".join(map(str, client.recv(512)[-4:]))


for what, host in SPELLED.items():
    attempt("a name with " + what, lambda: inner() or by_name(ask(host), 80, request()))
attempt("SOCKS", lambda: inner() or dial(("127.0.0.1", 1080)))
