expect("one of its addresses may be dialled", lambda: plain("mixed.allowed.test"))
expect("the first answer for a name that changes", lambda: plain("rebound.allowed.test"))
for host in ("inside.allowed.test", "metadata.allowed.test", "mixed.allowed.test"):
    attempt(host, lambda: harmful(plain(host)))
for number in range(4):
    attempt("rebound.allowed.test", lambda: harmful(plain("rebound.allowed.test")))
