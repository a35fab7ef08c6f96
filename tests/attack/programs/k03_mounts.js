const own = ["--user", "--map-root-user", "--mount", "--pid", "--fork", "mount"];
for (const kind of ["tmpfs", "proc"]) await attempt(`mount ${kind}`, runs("unshare", ...own, "-t", kind, "none", "/tmp"));
if (!GIVEN.control) await attempt("mount tmpfs here", runs("mount", "-t", "tmpfs", "none", "/tmp"));
await attempt("bind /usr, to be written", runs("unshare", ...own, "--bind", "/usr", "/tmp"));
