expect("a small one", plain)
connection = dial()
sent = connection.send(request("http://api.allowed.test/", method="POST", headers="Content-Length: %d\r\n" % (16 << 20)).encode())
piece = bytes(64 << 10)
try:
    while sent < 16 << 20:
        sent += connection.send(piece)
    answer(connection)
except OSError:
    pass
say("sent", sent)
attempt("more, once it is cut", plain)
