import signal
for who, pid in (("the canary", GIVEN["pid"]), ("the gateway", GIVEN["gateway"])):
    def known():
        try:
            os.kill(pid, 0)
        except PermissionError:
            pass
        return True
    attempt("find %s by a signal" % who, known)
    attempt("a handle on %s" % who, lambda: os.pidfd_open(pid) >= 0)
