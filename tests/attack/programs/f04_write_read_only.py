REMOUNT_BIND = 0x20 | 0x1000
attempt("the root mounted anew, to be written", lambda: libc.mount(None, b"/", None, REMOUNT_BIND, None) == 0)
for path in ("/x", "/etc/x", "/dev/x", "/program/x", "/work/in/x"):
    folder = os.path.dirname(path).encode()
    libc.mount(None, folder, None, REMOUNT_BIND, None)
    libc.mount(b"none", folder, b"tmpfs", 0, None)
    attempt("write " + path, writes(path))
libc.mount(None, b"/usr", None, REMOUNT_BIND, None)
libc.mount(b"none", b"/usr/local", b"tmpfs", 0, None)
attempt("write /usr/local/x", writes("/usr/local/x"))
attempt("write /usr/ringfence-attack", writes("/usr/ringfence-attack"))
attempt("write over the interpreter", lambda: open("/usr/bin/env", "r+b").write(b"x"))
