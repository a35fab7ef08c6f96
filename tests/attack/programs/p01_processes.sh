more_than_its_own() { local all=(/proc/[0-9]*); [ ${#all[@]} -gt 5 ]; }
attempt "more than its own processes" more_than_its_own
attempt "a process of the host's" exists "/proc/$PID"
attempt "the gateway" exists "/proc/$GATEWAY"
