# Arguments that no kernel acts on: a call that is let through answers EINVAL, EFAULT, EBADF or the like.
CALLS = dict(init_module=175, finit_module=313, delete_module=176, kexec_load=246, kexec_file_load=320, reboot=169, swapon=167, swapoff=168, acct=163, quotactl=179, syslog=103, iopl=172, ioperm=173, nfsservctl=180, bpf=321, perf_event_open=298, userfaultfd=323, io_uring_setup=425, io_uring_enter=426, io_uring_register=427, personality=135, keyctl=250, add_key=248, request_key=249, name_to_handle_at=303, open_by_handle_at=304, fanotify_init=300, lookup_dcookie=212, modify_ldt=154, vhangup=153, pidfd_getfd=438, process_madvise=440, memfd_secret=447, mount_setattr=442, move_mount=429, migrate_pages=256, move_pages=279, mbind=237, set_mempolicy=238, settimeofday=164, clock_adjtime=305, adjtimex=159, clock_settime=227, statmount=457, listmount=458, lsm_set_self_attr=460, uselib=134, sysfs=139, ustat=136)
for name, number in CALLS.items():
    if name == "vhangup":
        continue
    arguments = {"reboot": (0, 0, 0, 0), "personality": (0xFFFFFFFF,), "swapon": (0, 0), "syslog": (99, 0, 0), "io_uring_setup": (0, 0)}.get(name, (-1, -1, -1, -1, -1, -1))
    attempt(name, in_child(asks(number, *arguments)))
attempt("READ_IMPLIES_EXEC", in_child(lambda: call(135, 0x0400000) >= 0))
attempt("sethostname", lambda: libc.sethostname(b"attack", 6) == 0)
attempt("setdomainname", lambda: libc.setdomainname(b"attack", 6) == 0)
for path in ("/dev/userfaultfd", "/dev/kvm", "/dev/fuse"):
    attempt(path, exists(path))
