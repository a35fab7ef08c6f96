# The sandbox attacks itself, with what Bash alone can try. One line a probe: `held NAME`, or `hole NAME`.
probe() {
    local name=$1
    shift
    if "$@" 2> /dev/null; then echo "hole $name"; else echo "held $name"; fi
}
any_exists() { local path; for path in "$@"; do [ -e "$path" ] && return 0; done; return 1; }
many_processes() { local all=(/proc/[0-9]*); [ ${#all[@]} -gt 3 ]; }
reaches() { exec 5<> /dev/tcp/127.0.0.1/1 || return 1; }
has_network() { local line; { read -r _; read -r _; while read -r line; do [[ $line == lo:* ]] || return 0; done; } < /proc/self/net/dev; return 1; }
status_is_not() { local key value; while read -r key value; do [ "$key" = "$1:" ] && { [ "$value" != "$2" ]; return; }; done < /proc/self/status; return 0; }
kernel_is_not() { local line; read -r line < /proc/version; [[ $line != "Linux version $1 "* ]]; }
probe host_files any_exists /etc/shadow /etc/hostname /root /home /boot /var/log
probe sys_is_there any_exists /sys
probe sys_shows_something any_exists /sys/*
probe host_processes many_processes
probe write_usr eval 'echo x > /usr/attack'
probe write_program eval 'echo x > /program/main.sh'
probe init_memory eval 'read -r -N 1 _ < /proc/1/mem'
probe kernel_settings any_exists /proc/sys /proc/kcore
probe kernel_settings_written eval ': >> /proc/sys/kernel/core_pattern || : >> /proc/sys/vm/drop_caches'
probe kernel_memory any_exists /proc/kcore /dev/mem
probe host_kernel kernel_is_not 4.4.0
probe sockets reaches
probe interfaces has_network
probe capabilities status_is_not CapEff 0000000000000000
probe bounding_set status_is_not CapBnd 0000000000000000
probe new_privileges_shown status_is_not NoNewPrivs 1
probe no_filter status_is_not Seccomp 2
probe root_user test "$UID" -eq 0
