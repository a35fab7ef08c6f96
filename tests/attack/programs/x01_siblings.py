# Processes whose parent is this one's parent, who is outside.
CLONE_PARENT, SIGCHLD = 0x8000, 17
read, write = os.pipe()


def adopts():
    if call(56, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0) == 0:
        os.write(write, b"%d" % os.getppid())
        os._exit(0)
    return int(os.read(read, 20)) != os.getpid()


attempt("a sibling", adopts)
