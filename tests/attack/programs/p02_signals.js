for (const [who, pid] of [["of the host", GIVEN.pid], ["gateway", GIVEN.gateway]]) {
  await attempt(`find process ${who} by a signal`, () => process.kill(pid, 0));
}
