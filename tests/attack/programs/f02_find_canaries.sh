search() { local found; found=$(grep -rsh -m 1 --include=canary.txt -e "$PREFIX-host" /usr/local/share /var/tmp /etc | head -n 1); [ -n "$found" ] && say "$found"; }
environments() { local found; found=$(cat /proc/[0-9]*/environ 2> /dev/null | tr '\0' '\n' | grep -m 1 -e "$PREFIX-host"); [ -n "$found" ] && say "$found"; }
attempt "a file of the host's, by its path" reads "$FILE"
attempt "the same by the root of another process" reads "/proc/$PID/root$FILE"
attempt "a file of the host's, by looking for it" search
attempt "the environment of a process of the host's" environments
