# Everything this process has in memory: what other programs of the same interpreter were told must not be there.
import gc, re
own = GIVEN["prefix"]
maps = [line.split() for line in open("/proc/self/maps")]
found = set()
with open("/proc/self/mem", "rb", 0) as memory:
    for line in maps:
        if "r" not in line[1] or line[-1].startswith("[v"):
            continue
        start, end = (int(part, 16) for part in line[0].split("-"))
        while start < end:
            try:
                memory.seek(start)
                text = memory.read(min(end - start, 1 << 20))
            except (OSError, ValueError, OverflowError):
                break
            found.update(re.findall(re.escape(own).encode() + rb"-program-[0-9a-f]{16}", text))
            start += max(len(text), 1)
frame, names = sys._getframe(), set()
while frame:
    names.update(key for key, value in frame.f_locals.items() if key == "children" and value)
    frame = frame.f_back
attempt("itself", lambda: any(token.endswith(GIVEN["own"].encode()) for token in found))
attempt("another program's words", lambda: b" ".join(token for token in found if not token.endswith(GIVEN["own"].encode())) or False)
attempt("the numbers of other programs", lambda: " ".join(names) or False)
