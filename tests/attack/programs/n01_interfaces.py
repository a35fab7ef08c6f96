def interfaces():
    names = [line.split(":")[0].strip() for line in open("/proc/self/net/dev").read().splitlines()[2:]]
    return " ".join(names) if set(names) - {"lo"} else False


attempt("an interface", interfaces)
attempt("a route", lambda: "\n".join(open("/proc/self/net/fib_trie").read().split()) if len(open("/proc/self/net/fib_trie").read().splitlines()) > 4 else False)
attempt("a connection of somebody's", lambda: open("/proc/self/net/tcp").read() if len(open("/proc/self/net/tcp").read().splitlines()) > 1 else False)
attempt("a socket of somebody's", lambda: any(GIVEN["abstract"] in line for line in open("/proc/self/net/unix")))
attempt("the names of interfaces", lambda: [name for _, name in socket.if_nameindex() if name != "lo"])
