for name in kmsg mem port kvm fuse net/tun loop-control vhost-net vda tty console ptmx pts mapper; do
    attempt "/dev/$name" exists "/dev/$name"
done
