await attempt("the host's loopback", connects(GIVEN.port, "127.0.0.1"));
for (const host of ["10.0.0.1", "172.17.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "168.63.129.16", "8.8.8.8", "fd00:ec2::254"]) await attempt(`tcp ${host}`, connects(80, host));
await attempt("udp 10.0.0.1", () => new Promise((resolve, reject) => {
  const socket = require("node:dgram").createSocket("udp4");
  socket.once("error", reject);
  socket.send("x", 53, "10.0.0.1", (error) => { socket.close(); if (error) reject(error); else resolve(true); });
}));
await attempt("a page", async () => (await fetch("http://169.254.169.254/", { signal: AbortSignal.timeout(1000) })).text());
