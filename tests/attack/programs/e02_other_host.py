expect("the host that is on the list", lambda: within(request(), trust=TRUST))
for host in ("evil.test", "x.api.allowed.test", "allowed.test", "other.test"):
    attempt("CONNECT " + host, lambda: within(request("/", host), host))
attempt("CONNECT with the other Host header", lambda: within(request("/", "evil.test"), "evil.test", headers="Host: api.allowed.test:443\r\n"))
attempt("TLS by name", lambda: by_name("evil.test", 443))
attempt("TLS by name, with the listed server name", lambda: by_name("evil.test", 443, request(), ALLOWED))
