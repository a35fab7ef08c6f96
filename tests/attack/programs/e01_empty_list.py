for host in (ALLOWED, "evil.test"):
    attempt("CONNECT " + host, lambda: within(request("/", host), host))
attempt("CONNECT to port 22", lambda: within(request(), "api.allowed.test:22"))
for host in (ALLOWED, "evil.test"):
    attempt("plain HTTP to " + host, lambda: plain(host))
    attempt("a connection by name to " + host, lambda: by_name(host, 80))
    attempt("TLS by name to " + host, lambda: by_name(host, 443))
