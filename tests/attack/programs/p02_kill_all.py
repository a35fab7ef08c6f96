# Only ever run with every layer. It ends whatever it can see, and then everything by number.
import signal
if os.fork() == 0:
    time.sleep(30)
os.kill(-1, signal.SIGTERM)
for pid in list(range(1, 4000)) + [GIVEN["pid"], GIVEN["gateway"]]:
    if pid != os.getpid():
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
try:
    os.kill(0, 0)
    os.kill(os.getppid(), signal.SIGKILL) if os.getppid() > 0 else None
except OSError:
    pass
