import resource


def raises(which):
    def function():
        soft, hard = resource.getrlimit(which)
        if hard == resource.RLIM_INFINITY:
            return False
        resource.setrlimit(which, (hard + 1, hard + 1))
        return True
    return in_child(function)


if not GIVEN["outside"]:
    for name in ("CORE", "CPU", "FSIZE", "NOFILE", "NPROC", "MEMLOCK"):
        attempt("raise " + name, raises(getattr(resource, "RLIMIT_" + name)))
attempt("limits of the canary", lambda: resource.prlimit(GIVEN["pid"], resource.RLIMIT_NOFILE) and True)
attempt("nice -20", in_child(lambda: os.setpriority(os.PRIO_PROCESS, 0, -20) is None))
attempt("SCHED_FIFO", in_child(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)) is None))
attempt("real-time input and output", in_child(lambda: call(251, 1, 0, 1 << 13) == 0))
attempt("never the one that is killed", in_child(writes("/proc/self/oom_score_adj", "-1000")))
