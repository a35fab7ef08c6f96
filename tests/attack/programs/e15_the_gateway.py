expect("the listed host", lambda: within(request(), trust=TRUST))
PORT = GIVEN["port"]
for host in ("127.0.0.1", "localhost", "0.0.0.0", "2130706433", "[::ffff:127.0.0.1]", "127.1", "0x7f.0.0.1", "0177.0.0.1"):
    attempt("the gateway as %s" % host, lambda: connect("%s:%d" % (host, PORT), headers="").recv(400))
    attempt("the gateway as %s, by plain HTTP" % host, lambda: harmful(plain("%s:%d" % (host, PORT))))


def through_itself():
    connection = connect("127.0.0.1:%d" % PROXY[1])
    connection.sendall(b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n")
    passed(connection.recv(400).decode())
    connection = secure(connection, "evil.test")
    connection.sendall(request("/", "evil.test").encode())
    return harmful(answer(connection))


attempt("the proxy through itself", through_itself)
attempt("the gateway without it", lambda: inner() or dial(("127.0.0.1", PORT)))
attempt("a server without it", lambda: inner() or dial(("127.0.0.1", GIVEN["upstream"])))
