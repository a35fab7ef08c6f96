import shutil, subprocess
# The loader shows its vector only where executing gave no rights.
for program in ("/usr/bin/su", "/usr/bin/mount", "/usr/bin/passwd", "/usr/bin/newgrp"):
    if not os.path.exists(program):
        continue
    def gains():
        shown = subprocess.run([program, "--help"], env={"LD_SHOW_AUXV": "1"}, capture_output=True, timeout=5, stdin=subprocess.DEVNULL)
        return b"AT_SECURE" not in shown.stdout
    attempt("rights by executing " + program, gains)


def copy():
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), "bash-copy")
    shutil.copy("/usr/bin/bash", path)
    os.chmod(path, 0o6755)
    said = subprocess.run([path, "-p", "-c", "grep -E '^(CapEff|NoNewPrivs|Uid)' /proc/self/status"], capture_output=True, text=True).stdout
    fields = dict(line.split(":", 1) for line in said.splitlines())
    return fields["CapEff"].strip() != "0" * 16 or fields["NoNewPrivs"].strip() != "1"


attempt("rights by a copy of the shell", copy)
