for path in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/kcore /proc/kallsyms /proc/keys /proc/timer_list /sys/kernel /sys/fs/cgroup; do
    attempt "$path" exists "$path"
done
