await attempt("a file of the host's, by its path", reads(GIVEN.file));
await attempt("the same by the root of another process", reads(`/proc/${GIVEN.pid}/root${GIVEN.file}`));
await attempt("a file of the host's, by looking for it", () => {
  for (const top of ["/usr/local/share", "/var/tmp", "/tmp", "/etc", "/home"]) {
    if (!fs.existsSync(top)) continue;
    for (const folder of ["", ...fs.readdirSync(top)]) {
      const path = `${top}/${folder}/canary.txt`;
      try { const text = fs.readFileSync(path, "utf8"); if (text.includes(GIVEN.prefix)) return text; } catch { /* the next */ }
    }
  }
});
await attempt("the environment of a process of the host's", () => {
  for (const pid of fs.readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name) && Number(name) !== process.pid)) {
    try { const text = fs.readFileSync(`/proc/${pid}/environ`, "latin1"); if (text.includes(`${GIVEN.prefix}-`)) return text; } catch { /* the next */ }
  }
});
