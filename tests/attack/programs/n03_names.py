os.environ["RES_OPTIONS"] = "timeout:1 attempts:1"
query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06attack\x04test\x00\x00\x01\x00\x01"


def asks_for(host, port, packet):
    client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(0.5)
    client.sendto(packet, (host, port))
    return client.recv(400)


for host, port in (("127.0.0.1", 53), ("10.0.0.2", 53), ("8.8.8.8", 53), ("127.0.0.53", 53), ("8.8.8.8", 443), ("224.0.0.251", 5353), ("fd00:ec2::253", 53)):
    attempt("a question to %s:%d" % (host, port), lambda: asks_for(host, port, query))
for host in ("1.1.1.1", "8.8.8.8"):
    attempt("DNS over TLS with " + host, lambda: socket.create_connection((host, 853), timeout=0.5).recv(400))
attempt("a name", lambda: bool(socket.getaddrinfo("attack.example", 80)))
attempt("the cache of names", lambda: socket.socket(socket.AF_UNIX).connect("/run/nscd/socket") is None)
