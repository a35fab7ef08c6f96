hoard = []
for _ in range(64):
    hoard.append(bytearray(16 << 20))
print("survived with", len(hoard) * 16, "MiB")
