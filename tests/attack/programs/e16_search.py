import re
PATTERN = re.compile((GIVEN["prefix"] + "-host-credential-[0-9a-f]{16}").encode())
if not OUTSIDE:
    headers = "Authorization: Bearer %s\r\n" % GIVEN["placeholder"]
    expect("a request that is authorised", lambda: within(request("/v1/echo", headers=headers), trust=TRUST))
    say(within(request("/v1/echo", headers=headers)))


def look(read):
    try:
        for found in PATTERN.findall(read()):
            say("reached", found.decode())
    except OSError:
        pass


def memory(pid):
    text = b""
    with open("/proc/%s/maps" % pid) as maps, open("/proc/%s/mem" % pid, "rb", 0) as mem:
        for line in maps:
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            if " r" in line and last - first < 64 << 20 and first < 1 << 63:
                try:
                    mem.seek(first)
                    text = b"".join(PATTERN.findall(mem.read(last - first))) + text
                except OSError:
                    pass
    return text


pids = [name for name in os.listdir("/proc") if name.isdigit()]
look(lambda: "\n".join("%s=%s" % pair for pair in os.environ.items()).encode())
for top, folders, files in os.walk("/"):
    if top == "/":
        folders[:] = [name for name in folders if name not in ("usr", "proc")]
    for name in files:
        path = os.path.join(top, name)
        if os.path.isfile(path):
            look(lambda: open(path, "rb").read(1 << 20))
for pid in pids:
    for name in ("environ", "cmdline"):
        look(lambda: open("/proc/%s/%s" % (pid, name), "rb").read())
    look(lambda: memory(pid))
say("looked into", len(pids), "processes")
