# What there is of a network here: interfaces other than the sandbox's own loopback, and routes.
with open("/proc/self/net/dev") as table:
    for line in table.readlines()[2:]:
        name = line.split(":")[0].strip()
        if name != "lo":
            print("interface", name)
for path in ["/proc/self/net/route", "/proc/self/net/ipv6_route"]:
    with open(path) as table:
        for line in table:
            words = line.split()
            if words[0] != "Iface" and words[-1] != "lo":
                print("route", line.strip())
print("looked")
