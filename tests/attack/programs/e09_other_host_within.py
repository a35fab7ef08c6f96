expect("the listed host, read", lambda: within(request(), trust=TRUST))
expect("the listed host, in a tunnel", lambda: within(request("/", "tunnel.allowed.test"), "tunnel.allowed.test", trust=TRUST))
attempt("another Host within", lambda: harmful(within(request("/", "evil.test"))))
attempt("another absolute target within", lambda: harmful(within(request("https://evil.test/", "evil.test"))))


def second():
    connection = secure(connect(ALLOWED + ":443"), ALLOWED)
    connection.sendall(request().encode())
    passed(answer(connection))
    connection.sendall(request("/", "evil.test").encode())
    return harmful(answer(connection))


def both_at_once():
    connection = secure(connect(ALLOWED + ":443"), ALLOWED)
    connection.sendall((request() + request("/", "evil.test")).encode())
    connection.settimeout(1)
    return harmful(everything(connection))


attempt("another Host on a connection that is kept", second)
attempt("another Host, sent along", both_at_once)
attempt("HTTP/2", lambda: harmful(within("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
for target in (ALLOWED, "tunnel.allowed.test"):
    for what, name in (("another", "evil.test"), ("an address as", "192.0.2.1")):
        attempt("%s server name to %s" % (what, target), lambda: within(request("/", target), target, name))


def nameless():
    connection = secure(connect("tunnel.allowed.test:443"), None)
    connection.sendall(request("/", "tunnel.allowed.test").encode())
    return passed(answer(connection))


attempt("no server name", nameless)
attempt("another server name, by name", lambda: by_name("tunnel.allowed.test", 443, request("/", "evil.test"), "evil.test"))
