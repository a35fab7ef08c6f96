import re
expect("its own authority", lambda: within(request("/v1"), trust=TRUST))
attempt("another sandbox's authority", lambda: within(request("/v1"), trust=THEIRS))
PATTERN = re.compile(rb"PRIVATE KEY-----\s+[A-Za-z0-9+/]{20}")


def keys():
    for top in ("/program", "/work", "/tmp", "/etc", "/dev/shm"):
        for folder, _, files in os.walk(top):
            for name in files:
                path = os.path.join(folder, name)
                if os.path.isfile(path) and PATTERN.search(open(path, "rb").read(1 << 20)):
                    return path
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as mem:
        for line in maps:
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            if " r" in line and last - first < 64 << 20 and first < 1 << 63:
                try:
                    mem.seek(first)
                    if PATTERN.search(mem.read(last - first)):
                        return line
                except OSError:
                    pass
    return False


attempt("a key", keys)
