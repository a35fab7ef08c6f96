for path in ("/etc/ld.so.preload", "/etc/cron.d/x", "/etc/profile.d/x.sh", "/root/.bashrc", "/usr/lib/python3/dist-packages/sitecustomize.py", "/usr/local/bin/python3", "/proc/sys/kernel/core_pattern", "/run/x", "/var/x", "/boot/x", "/home/x"):
    attempt("write " + path, writes(path))
