try:
    memory = os.memfd_create("x", 0)
except OSError:
    say("reached nothing, since there are no files in memory" if GIVEN["control"] else "refused rights by executing a memory file")
    say("tried")
    os._exit(0)
os.write(memory, open("/usr/bin/cat", "rb").read())
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    os.dup2(write, 1)
    arguments = (ctypes.c_char_p * 3)(b"cat", b"/proc/self/status", None)
    call(322, memory, ctypes.c_char_p(b""), arguments, 0, 0x1000)
    os._exit(1)
os.close(write)
os.waitpid(pid, 0)
status = dict(line.split(":", 1) for line in os.fdopen(read).read().splitlines() if ":" in line)
attempt("rights by executing a memory file", lambda: bool(status) and (int(status["CapEff"], 16) | int(status["CapBnd"], 16) != 0 or status["Seccomp"].strip() != "2" or status["NoNewPrivs"].strip() != "1"))
