import re
prefix = GIVEN["prefix"]
attempt("a file of the host's, by its path", reads(GIVEN["file"]))
attempt("the same by the root of another process", reads("/proc/%d/root%s" % (GIVEN["pid"], GIVEN["file"])))
attempt("a file of root's", reads(GIVEN["root_file"]))


def find():
    for top, folders, files in os.walk("/"):
        if top == "/":
            folders[:] = [name for name in folders if name not in ("proc", "sys", "dev", "work", "program")]
        if top.startswith("/usr") and not top.startswith("/usr/local"):
            folders[:] = folders if top == "/usr" else []
        for name in files:
            path = os.path.join(top, name)
            if "canary" in name and os.path.isfile(path):
                text = open(path, errors="replace").read(4096)
                if prefix in text:
                    return text
    return False


def processes():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("environ", "cmdline"):
            try:
                text = open("/proc/%s/%s" % (pid, name), errors="replace").read()
            except OSError:
                continue
            if int(pid) != os.getpid() and re.search(re.escape(prefix) + "-host", text):
                return text
    return False


attempt("a file of the host's, by looking for it", find)
attempt("the environment of a process of the host's", processes)
attempt("the memory of that process", reads("/proc/%d/environ" % GIVEN["pid"]))
