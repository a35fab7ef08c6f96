slow = []
for _ in range(30):
    try:
        slow.append(dial())
        slow[-1].sendall(b"GET http://api.allowed.test/ HTTP/1.1\r\nx: ")
    except OSError:
        break
time.sleep(1.5)
for connection in slow:
    connection.close()


def endless():
    connection, sent = dial(), 0
    connection.sendall(b"GET http://api.allowed.test/ HTTP/1.1\r\nx: ")
    while sent < 32 << 20:
        sent += connection.send(b"y" * (64 << 10))
    return True


attempt("a head without an end", endless)
answers = 0
for _ in range(200):
    try:
        answers += bool(plain())
    except OSError:
        pass
say(answers, "answers")
