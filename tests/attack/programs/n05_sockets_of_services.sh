# Bash cannot connect to one; where the host's `/usr` is shown, so is a socket in it.
for path in "${SOCKETS[@]}"; do [[ $path == /usr/* ]] || attempt "a socket of the host's at a path" exists "$path"; done
for path in /run/docker.sock /var/run/docker.sock /run/containerd/containerd.sock /run/dbus/system_bus_socket /run/systemd/private /tmp/.X11-unix/X0 /run/user/0/bus; do
    attempt "$path" exists "$path"
done
