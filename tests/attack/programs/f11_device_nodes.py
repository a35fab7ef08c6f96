import stat
for folder in ("/work", "/dev/shm", "/tmp"):
    for name, kind, major, minor in (("disk", stat.S_IFBLK, 8, 0), ("mem", stat.S_IFCHR, 1, 1), ("whiteout", stat.S_IFCHR, 0, 0)):
        attempt("%s in %s" % (name, folder), lambda: os.mknod("%s/%s" % (folder, name), kind | 0o600, os.makedev(major, minor)) is None)
