libc.shmat.restype = ctypes.c_void_p


def attach(number):
    def function():
        address = libc.shmat(number, None, 0o10000)
        if address in (None, ctypes.c_void_p(-1).value):
            return False
        return ctypes.string_at(address, 128).decode("utf-8", "replace")
    return function


attempt("the host's segment, by its number", attach(GIVEN["shm_id"]))
attempt("the host's segment, by its key", lambda: attach(libc.shmget(GIVEN["shm_key"], 0, 0))())
attempt("list segments", lambda: libc.shmctl(0, 13, ctypes.create_string_buffer(256)) >= 0)
attempt("a message queue of the host's", lambda: os.listdir("/dev/mqueue"))
