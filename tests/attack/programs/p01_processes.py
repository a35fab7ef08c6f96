own = {name for name in os.listdir("/proc") if name.isdigit()}
attempt("more than its own processes", lambda: len(own) > 3)
attempt("a process of the host's", exists("/proc/%d" % GIVEN["pid"]))
attempt("the gateway", exists("/proc/%d" % GIVEN["gateway"]))
for pid in sorted(own, key=int):
    say(pid, open("/proc/%s/comm" % pid).read().strip())
