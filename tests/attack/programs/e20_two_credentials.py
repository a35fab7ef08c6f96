for what, headers in (
    ("none", ""),
    ("one of its own", "Authorization: Basic eDp5\r\n"),
    ("two", "Authorization: Bearer own\r\nAuthorization: Basic eDp5\r\n"),
    ("two, in odd case", "aUTHORIZATION: Bearer own\r\nauthorization: Bearer %s\r\n" % GIVEN["placeholder"]),
):
    expect(what, lambda: within(request("/v1", headers=headers), trust=TRUST))
