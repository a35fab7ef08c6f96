expect("a request while somebody holds the other end", plain)
for number in range(5):
    attempt("the proxy, %d" % number, plain)
    time.sleep(0.05)
attempt("a tunnel", lambda: within(request()))
attempt("by name", lambda: by_name(ALLOWED, 80))
attempt("by an address of its own", lambda: by_name("127.1.0.1", 80, request()))
for host, port in (("127.0.0.1", GIVEN["upstream"]), ("127.0.0.1", GIVEN["port"]), ("10.0.0.1", 80), ("169.254.169.254", 80), ("8.8.8.8", 53)):
    attempt("%s:%d" % (host, port), lambda: dial((host, port)))
