STORAGE = "storage.allowed.test"
ask = lambda path, host=STORAGE, **more: request(path, host, **more)
expect("the listed bucket", lambda: within(ask("/bucket-a/x"), STORAGE, trust=TRUST))
for path in (
    "/bucket-b/x", "/bucket-ab/x", "//bucket-b/x", "/bucket-a/../bucket-b/x", "/bucket-a/%2e%2e/bucket-b/x", "/bucket-a%2f..%2fbucket-b/x",
    "/bucket-a/..%2fbucket-b/x", "/bucket-a/..;/bucket-b/x", "/bucket-a\\..\\bucket-b", "/%62ucket-b/x", "/",
):
    attempt(path, lambda: harmful(within(ask(path), STORAGE)) if path != "/" else within(ask(path), STORAGE))
attempt("the bucket as a host within", lambda: harmful(within(ask("/bucket-a/x", "bucket-b.storage.allowed.test"), STORAGE)))
attempt("the bucket as a host", lambda: within(ask("/bucket-a/x", "bucket-b.storage.allowed.test"), "bucket-b.storage.allowed.test"))
attempt("another account", lambda: within(ask("/bucket-a/x", "storage.other.test"), "storage.other.test"))
attempt("a copy out of another", lambda: harmful(within(ask("/bucket-a/x", method="PUT", headers="x-amz-copy-source: /bucket-b/x\r\n", body="x"), STORAGE)))
attempt("X-Original-URL", lambda: harmful(within(ask("/bucket-a/x", headers="X-Original-URL: /bucket-b/x\r\n"), STORAGE)))
