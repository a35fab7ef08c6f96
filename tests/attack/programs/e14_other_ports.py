expect("the listed port", lambda: within(request(), trust=TRUST))
for port in (22, 80, 444, 8443, 0, 65535, 4430):
    attempt("port %d" % port, lambda: within(request(), "%s:%d" % (ALLOWED, port)))
attempt("plain HTTP to the listed port", lambda: says(request("http://api.allowed.test:443/", "api.allowed.test:443")))
attempt("plain HTTP", plain)
attempt("a number above 16 bits", lambda: within(request(), ALLOWED + ":65979"))
for port in (22, 80, 8443):
    attempt("port %d, by name" % port, lambda: by_name(ALLOWED, port))
