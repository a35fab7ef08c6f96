# Sockets are made, and never connected.
for name, family, kind in (("VSOCK", 40, 1), ("ALG", 38, 5), ("KEY", 15, 3), ("RXRPC", 33, 2), ("PACKET", 17, 3), ("XDP", 44, 3), ("TIPC", 30, 1), ("CAN", 29, 3), ("BLUETOOTH", 31, 3), ("QIPCRTR", 42, 2), ("NFC", 39, 5), ("NETLINK route", 16, 3), ("INET", 2, 1), ("INET6", 10, 1), ("SMC", 43, 1), ("MCTP", 45, 2)):
    attempt(name, in_child(lambda: call(41, family, kind, 0) >= 0))
for name, kind, protocol in (("raw", 3, 1), ("ping", 2, 1), ("udplite", 2, 136), ("sctp", 1, 132), ("mptcp", 1, 262)):
    attempt(name, in_child(lambda: call(41, 2, kind, protocol) >= 0))
attempt("XFRM", in_child(lambda: call(41, 16, 3, 6) >= 0))
attempt("netfilter", in_child(lambda: call(41, 16, 3, 12) >= 0))
attempt("a pair of another family", in_child(lambda: call(53, 2, 1, 0, ctypes.create_string_buffer(8)) >= 0))
attempt("a family above 32 bits", in_child(lambda: call(41, (1 << 32) | 2, 1, 0) >= 0))
