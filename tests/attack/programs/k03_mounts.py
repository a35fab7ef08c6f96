os.makedirs("/tmp/here", exist_ok=True)
KINDS = "proc sysfs cgroup cgroup2 overlay bpf debugfs tracefs fuse tmpfs binfmt_misc mqueue devpts devtmpfs ramfs securityfs configfs efivarfs ext4".split()
for kind in KINDS:
    data = b"memory" if kind == "cgroup" else b"lowerdir=/usr:/usr/bin" if kind == "overlay" else None
    attempt("mount " + kind, lambda: libc.mount(b"none", b"/tmp/here", kind.encode(), 0, data) == 0)
    attempt("fsopen " + kind, lambda: call(430, ctypes.c_char_p(kind.encode()), 0) >= 0)
attempt("bind", lambda: libc.mount(b"/usr", b"/tmp/here", None, 4096, None) == 0)
attempt("open_tree", lambda: call(428, -100, ctypes.c_char_p(b"/usr"), 1) >= 0)
attempt("pivot_root", asks(155, ctypes.c_char_p(b"/nowhere"), ctypes.c_char_p(b"/nowhere")))
attempt("umount", lambda: libc.umount2(b"/proc", 2) == 0)
