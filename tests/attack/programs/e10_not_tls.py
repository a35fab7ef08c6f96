expect("TLS", lambda: within(request(), trust=TRUST))


def speaks(text):
    connection = connect(ALLOWED + ":443")
    connection.sendall(text)
    return answer(connection) or False


attempt("SSH", lambda: speaks(b"SSH-2.0-client\r\n"))
attempt("HTTP", lambda: speaks(request().encode()))
attempt("a shell", lambda: speaks(b"id; uname -a\n"))
attempt("binary", lambda: speaks(b"\x00\x01\x02\n"))


def by_name_speaks():
    inner()
    connection = dial((ALLOWED, 443))
    connection.sendall(b"id\n")
    return answer(connection) or False


attempt("by name", by_name_speaks)
attempt("a record that is no greeting", lambda: speaks(b"\x17\x03\x03\x00\x02id\n"))
