for name in ("sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/kernel/hotplug", "sys/vm/panic_on_oom", "sys/kernel/panic", "sys/fs/binfmt_misc", "sysrq-trigger", "kcore", "kallsyms", "keys", "timer_list", "sched_debug", "config.gz", "kmsg", "modules", "interrupts", "iomem"):
    attempt("/proc/" + name, exists("/proc/" + name))
for name in ("/sys", "/sys/kernel/uevent_helper", "/sys/fs/cgroup", "/sys/kernel/debug", "/sys/kernel/security"):
    attempt(name, lambda: os.path.isdir(name) and bool(os.listdir(name)) or os.path.isfile(name))
