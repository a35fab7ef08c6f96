for path in ("/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/loadavg", "/proc/uptime", "/proc/version", "/sys/devices/system/cpu/online"):
    attempt("read " + path, reads(path, 16))
