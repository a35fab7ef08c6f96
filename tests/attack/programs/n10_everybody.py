def sends(host, port, option):
    def function():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.setsockopt(*option)
        return client.sendto(b"attack", (host, port)) > 0
    return function


attempt("a broadcast", sends("255.255.255.255", 4000, (socket.SOL_SOCKET, socket.SO_BROADCAST, 1)))
attempt("a multicast", sends("224.0.0.251", 5353, (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)))
attempt("a port on every address", lambda: socket.create_server(("0.0.0.0", 0)) and True)
attempt("a route of its own choice", sends("10.0.0.1", 4000, (socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x83\x07\x04\x0a\x00\x00\x02\x01")))
