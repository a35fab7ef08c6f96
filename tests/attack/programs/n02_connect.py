TARGETS = [("127.0.0.1", GIVEN["port"]), ("127.0.0.1", 80), ("10.0.0.1", 80), ("10.20.30.40", 443), ("172.17.0.1", 80), ("192.168.1.1", 80), ("169.254.169.254", 80), ("100.100.100.200", 80), ("168.63.129.16", 80), ("100.64.0.1", 80), ("8.8.8.8", 53), ("203.0.113.7", 443), ("1.1.1.1", 853)]
for host, port in TARGETS:
    attempt("tcp %s:%d" % (host, port), lambda: socket.create_connection((host, port), timeout=0.5).recv(400))
for host, port in (("::1", 80), ("fd00:ec2::254", 80), ("fe80::1%lo", 80), ("2001:db8::1", 443), ("::ffff:10.0.0.1", 80)):
    attempt("tcp [%s]:%d" % (host, port), lambda: socket.create_connection((host, port), timeout=0.5).recv(400))


def fast_open(host, port):
    connection = socket.socket()
    connection.settimeout(0.5)
    return connection.sendto(b"x", 0x20000000, (host, port)) > 0


attempt("tcp with data in its first packet", lambda: fast_open("10.0.0.1", 80))
