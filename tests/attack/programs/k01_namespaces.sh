for flag in user mount net pid ipc uts cgroup; do
    attempt "unshare $flag" unshare --user "--$flag" true
done
