headers = "Authorization: Bearer %s\r\n" % GIVEN["placeholder"]
expect("plain HTTP to a host without a credential", lambda: plain("tunnel.allowed.test"))
attempt("with the placeholder", lambda: plain(path="/v1", headers=headers))
attempt("without it", lambda: plain(path="/v1"))
attempt("by name", lambda: by_name(ALLOWED, 80, request("/v1", headers=headers)))
