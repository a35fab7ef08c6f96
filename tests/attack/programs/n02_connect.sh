connects() { local line; exec 5<> "/dev/tcp/$1/$2" || return 1; read -r -t 1 -u 5 line; read -r -t 1 -u 5 line; read -r -t 1 -u 5 line; say "$line"; }
attempt "the host's loopback" connects 127.0.0.1 "$PORT"
for host in 10.0.0.1 172.17.0.1 192.168.1.1 169.254.169.254 100.100.100.200 168.63.129.16 8.8.8.8 fd00:ec2::254; do
    attempt "tcp $host" connects "$host" 80
done
sends() { echo x > "/dev/udp/$1/$2"; }
attempt "udp 10.0.0.1" sends 10.0.0.1 53
