expect("a path that is on the list", lambda: within(request("/v1/users"), trust=TRUST))
for path in (
    "/admin", "//admin", "/./admin", "/v1/../admin", "/v1/%2e%2e/admin", "/v1/%2E%2E%2fadmin", "/v1%2f..%2fadmin", "/v1/..;/admin",
    "/v1;x/../admin", "/v1/%252e%252e/admin", "/v1/..\\admin", "/v1/..%5cadmin", "/%61dmin", "https://api.allowed.test/admin",
):
    attempt(path, lambda: harmful(within(request(path))))
for what, headers in (
    ("X-HTTP-Method-Override", "X-HTTP-Method-Override: DELETE\r\n"),
    ("X-Original-URL", "X-Original-URL: /admin\r\n"),
    ("Upgrade", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    ("Upgrade to HTTP/2", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
):
    attempt(what, lambda: harmful(within(request("/v1", headers=headers))))
attempt("DELETE", lambda: harmful(within(request("/v1", method="DELETE"))))
