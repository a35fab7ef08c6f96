for (const name of "kmsg mem port kvm fuse net/tun loop-control vhost-net vda tty console ptmx pts mapper".split(" ")) await attempt(`/dev/${name}`, exists(`/dev/${name}`));
