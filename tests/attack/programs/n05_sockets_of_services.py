def connects(address):
    def function():
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(0.5)
        client.connect(address)
        return client.recv(400)
    return function


for path in GIVEN["sockets"]:
    attempt("a socket of the host's at a path", connects(path))
attempt("an abstract socket of the host's", connects("\0" + GIVEN["abstract"]))
for path in ("/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/podman/podman.sock", "/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/journal/socket", "/tmp/.X11-unix/X0", "/run/snapd.socket", "/var/lib/kubelet/kubelet.sock", "/run/user/0/bus", "/run/user/1000/wayland-0", "/run/udev/control"):
    attempt(path, exists(path))
