for (const flag of ["user", "mount", "net", "pid", "ipc", "uts", "cgroup"]) await attempt(`unshare ${flag}`, runs("unshare", "--user", `--${flag}`, "true"));
