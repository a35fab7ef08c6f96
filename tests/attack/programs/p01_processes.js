await attempt("more than its own processes", () => fs.readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name)).length > 4);
await attempt("a process of the host's", exists(`/proc/${GIVEN.pid}`));
await attempt("the gateway", exists(`/proc/${GIVEN.gateway}`));
