import urllib.request
attempt("what tells of a proxy", lambda: " ".join(name for name in os.environ if "proxy" in name.lower()) or False)
os.environ.update(NO_PROXY="*", no_proxy="*")
attempt("a page", lambda: urllib.request.urlopen("http://169.254.169.254/", timeout=1).read())
attempt("a resolver of its own choice", writes("/etc/resolv.conf", "nameserver 10.0.0.2\n"))
attempt("names of its own choice", writes("/etc/hosts", "10.0.0.1 example.com\n"))
