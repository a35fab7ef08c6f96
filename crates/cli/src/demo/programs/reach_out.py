# Only run once it is known that there is no interface and no route.
import socket

def reach(what, address):
    try:
        with socket.create_connection(address, timeout=0.3):
            print("reached", what)
    except OSError as error:
        print(what, error)

reach("the host's loopback", ("127.0.0.1", LISTENER_PORT))
reach("a metadata address", ("169.254.169.254", 80))
reach("a private address", ("10.0.0.1", 80))
try:
    print("reached the name", socket.getaddrinfo("collector.example", 443))
except OSError as error:
    print("a name", error)
print("tried")
