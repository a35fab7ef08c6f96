# getpid as a 32-bit program and as an x32 program would ask for it.
import mmap
def code(bytes_):
    def function():
        memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        memory.write(bytes_)
        return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))() == os.getpid()
    return in_child(function)


attempt("int 0x80", code(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"))
attempt("x32", in_child(asks(0x40000000 | 39)))
attempt("x32, by its own number", in_child(asks(0x40000000 | 512, 0, 0, 0)))
