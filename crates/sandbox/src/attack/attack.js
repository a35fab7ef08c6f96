// The sandbox attacks itself, with what Node can try. One line a probe: `held NAME`, or `hole NAME`.
const fs = require("node:fs");
function probe(name, attempt) {
  let succeeded;
  try { succeeded = attempt(); } catch { succeeded = false; }
  console.log(succeeded ? "hole" : "held", name);
}
const opens = (path, flags = "r") => { fs.closeSync(fs.openSync(path, flags)); return true; };
const status = (field) => fs.readFileSync("/proc/self/status", "utf8").split("\n").find((line) => line.startsWith(field + ":"))?.split(/\s+/)[1];
probe("host_files", () => ["/etc/shadow", "/etc/hostname", "/root", "/home", "/boot", "/var/log"].some((path) => fs.existsSync(path)));
probe("sys_is_there", () => fs.existsSync("/sys"));
probe("sys_shows_something", () => fs.readdirSync("/sys").length > 0);
probe("host_processes", () => fs.readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name)).length > 3);
const PROXIES = EGRESS ? ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS"] : [];
const ENVIRONMENT = ["HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", ...OPERATORS, ...PROXIES];
probe("host_environment", () => Object.keys(process.env).some((name) => !ENVIRONMENT.includes(name)));
probe("write_usr", () => opens("/usr/attack", "w"));
probe("write_program", () => opens("/program/main.js", "w"));
probe("init_memory", () => opens("/proc/1/mem"));
probe("kernel_settings", () => fs.existsSync("/proc/sys") || fs.existsSync("/proc/kcore"));
probe("kernel_memory", () => fs.existsSync("/proc/kcore") || fs.existsSync("/dev/mem"));
probe("host_kernel", () => require("node:os").release() !== "4.4.0");
probe("interfaces", () => fs.readFileSync("/proc/self/net/dev", "utf8").split("\n").slice(2).some((line) => line.trim() && !line.trim().startsWith("lo:")));
probe("capabilities", () => ["CapInh", "CapPrm", "CapEff", "CapBnd"].some((name) => parseInt(status(name), 16) !== 0));
probe("ambient_capabilities", () => parseInt(status("CapAmb"), 16) !== 0);
probe("new_privileges_shown", () => status("NoNewPrivs") !== "1");
probe("no_filter", () => status("Seccomp") !== "2");
probe("root_user", () => [process.getuid(), process.geteuid(), process.getgid()].includes(0));
