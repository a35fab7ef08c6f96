for number in range(8):
    expect("request %d" % number, lambda: plain(path="/%d" % number))
for number in range(3):
    expect("tunnel %d" % number, lambda: within(request("/%d" % number), trust=TRUST))
for host in ("evil.test", "evil.test\n{}", "evil\r.test", "evil\x1b[2J.test"):
    attempt(repr(host), lambda: within(request("/", "evil.test"), host + ":443", "evil.test", headers=""))
