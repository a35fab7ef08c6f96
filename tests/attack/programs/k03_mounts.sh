# In namespaces of its own, where the control has them too: nothing of the host's is mounted over.
for kind in tmpfs proc; do
    attempt "mount $kind" unshare --user --map-root-user --mount --pid --fork mount -t "$kind" none /tmp
done
attempt "mount tmpfs here" sh -c '[ -z "$CONTROL" ] && mount -t tmpfs none /tmp'
attempt "bind /usr, to be written" unshare --user --map-root-user --mount mount --bind /usr /tmp
