pid = os.fork()
if pid == 0:
    time.sleep(5)
    os._exit(0)
buffer = ctypes.create_string_buffer(64)
local = struct.pack("QQ", ctypes.addressof(buffer), 8)
attempt("PTRACE_SEIZE a child", lambda: call(101, 0x4206, pid, 0, 0) >= 0)
attempt("process_vm_readv of a child", lambda: call(310, pid, local, 1, local, 1, 0) > 0)
attempt("pidfd_getfd of a child", lambda: call(438, os.pidfd_open(pid), 1, 0) >= 0)
attempt("kcmp of a child", lambda: call(312, os.getpid(), pid, 1, 0, 0) >= 0)
for name in ("mem", "environ", "maps", "auxv", "stack"):
    attempt("init's " + name, lambda: open("/proc/1/" + name, "rb").read(1))
for name in ("cwd", "root", "exe", "fd", "ns"):
    attempt("init's " + name, lambda: (os.listdir if name in ("fd", "ns") else os.readlink)("/proc/1/" + name))
os.kill(pid, 9)
os.waitpid(pid, 0)
