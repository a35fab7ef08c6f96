for (const path of GIVEN.sockets) await attempt("a socket of the host's at a path", connects({ path }));
await attempt("an abstract socket of the host's", connects({ path: `\0${GIVEN.abstract}` }));
for (const path of ["/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket", "/run/systemd/private", "/tmp/.X11-unix/X0"]) await attempt(path, connects({ path }));
