import subprocess
for program in (["/usr/bin/strace", "-f", "/usr/bin/true"], ["/usr/bin/gdb", "-q", "-batch", "-ex", "run", "/usr/bin/true"]):
    if os.path.exists(program[0]):
        ran = subprocess.run(program, capture_output=True, text=True, timeout=8)
        attempt(program[0], lambda: "exited" in ran.stderr + ran.stdout and "not permitted" not in ran.stderr + ran.stdout)
        say((ran.stderr + ran.stdout)[-300:])
