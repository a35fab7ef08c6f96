# Waits in an interpreter for a program, and runs it. It runs as what the program runs as: what it says is believed of that
# program alone, and nothing that must hold depends on it. Few imports, since each is paid for at every start.
import _ast, atexit, sys
from posix import _exit, getpid, read, write

NAME = "main.py"
VALUE_MAX = 65536


def read_exactly(fd, count):
    parts = []
    while count:
        part = read(fd, count)
        if not part:
            _exit(0)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def say(fd, kind, code=0, text=b""):
    frame = kind + (code & 0xFFFFFFFF).to_bytes(4, "little") + len(text).to_bytes(4, "little") + text
    try:
        while frame:
            frame = frame[write(fd, frame):]
    except OSError:
        pass


def see_packages():
    # What `site` would find, without what the files there would run at each start (`*.pth`).
    import site
    from posix import stat
    for folder in site.getsitepackages():
        try:
            stat(folder)
        except OSError:
            continue
        if folder not in sys.path:
            sys.path.append(folder)
    site.setquit()
    site.sethelper()


def become_main():
    # The module that the program is: nothing of this one is in it.
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    sys.argv = [NAME]
    sys.path.insert(0, "/work")
    return main.__dict__


def evaluate(source, scope):
    tree = compile(source, NAME, "exec", 0x400, True)  # PyCF_ONLY_AST
    last = tree.body.pop() if tree.body and type(tree.body[-1]) is _ast.Expr else None
    exec(compile(tree, NAME, "exec", 0, True), scope)
    if last is None:
        return None
    value = eval(compile(_ast.Expression(last.value), NAME, "eval", 0, True), scope)
    return None if value is None else repr(value)


def show(error, source):
    import linecache, traceback
    linecache.cache[NAME] = (len(source), None, source.splitlines(True), NAME)
    shown = error.__traceback__
    while shown is not None and shown.tb_frame.f_globals is globals():
        shown = shown.tb_next
    traceback.print_exception(type(error), error, shown)


def attempt(source, scope):
    # The exit status, and the value of the last expression.
    try:
        value = evaluate(source, scope)
        return 0, value
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF, None
        print(error.code, file=sys.stderr)
    except BaseException as error:
        show(error, source)
    return 1, None


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def finish():
    # What the interpreter does at its end.
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()


def serve(fd):
    scope = become_main()
    own = getpid()
    while True:
        more = read_exactly(fd, 1) == b"\1"
        source = read_exactly(fd, int.from_bytes(read_exactly(fd, 4), "little")).decode()
        code, value = attempt(source, scope)
        if not more and getpid() == own:
            finish()
        flush()
        if getpid() != own:
            # A child that the program forked, and that came to the program's end.
            finish()
            flush()
            _exit(code)
        value = (value or "").encode("utf-8", "replace")
        say(fd, b"D" if not value else b"V", code, value[:VALUE_MAX])
        if not more:
            _exit(code)


def main():
    fd = int(sys.argv[1])
    see_packages()
    import posix
    posix.set_inheritable(fd, False)
    say(fd, b"R")
    serve(fd)
