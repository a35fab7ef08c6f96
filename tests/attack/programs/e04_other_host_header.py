expect("target and header agree", plain)
for what, headers in (
    ("another", "Host: evil.test\r\n"),
    ("two", "Host: api.allowed.test\r\nHost: evil.test\r\n"),
    ("two, the other way round", "Host: evil.test\r\nHost: api.allowed.test\r\nhost: evil.test\r\n"),
    ("with a user name", "Host: api.allowed.test@evil.test\r\n"),
    ("with a space before the colon", "Host: api.allowed.test\r\nHost : evil.test\r\nHOST:evil.test\r\n"),
    ("a list", "Host: api.allowed.test, evil.test\r\n"),
):
    attempt("Host: " + what, lambda: harmful(says("GET http://api.allowed.test/ HTTP/1.1\r\n%s\r\n" % headers)))
attempt("no Host", lambda: harmful(says("GET http://api.allowed.test/ HTTP/1.1\r\n\r\n")))
attempt("lines that end in one character", lambda: harmful(says("GET http://api.allowed.test/ HTTP/1.1\nHost: evil.test\n\r\n\r\n")))
attempt("another by name", lambda: harmful(by_name(ALLOWED, 80, request("/", "evil.test"))))
attempt("two lengths", lambda: harmful(says(request("http://api.allowed.test/", headers="Content-Length: 0\r\nTransfer-Encoding: chunked\r\n") + request("/", "evil.test"))))
