//! A PostgreSQL server of a test's own: made in a temporary folder, reached by a socket in it, stopped by its own process.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::{Project, until};

/// Whom the server runs as where the tests run as root, which it refuses to: `nobody`.
const NOBODY: u32 = 65_534;
/// Its superuser's password, and every role's of a test.
pub const PASSWORD: &str = "canary-of-the-database";

/// Where the newest server's programs are (`/usr/lib/postgresql/15/bin`); `None` where there is none.
#[must_use]
pub fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let versions = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let newest = PathBuf::from(format!("/usr/lib/postgresql/{}/bin", versions.max()?));
    newest.join("initdb").is_file().then_some(newest)
}

/// A server that runs; stopped when it is dropped.
pub struct Server {
    folder: TempDir,
    child: Child,
    /// Of its socket's name, and where it listens if it does.
    port: u16,
}

impl Server {
    /// Makes and starts one, which listens on its socket alone.
    ///
    /// # Panics
    /// Where there is none, or it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(5432, &[])
    }

    fn start_with(port: u16, settings: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("password");
        fs::write(&secret, PASSWORD).unwrap();
        for path in [folder.path(), &secret] {
            if getuid().is_root() {
                chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let mut initdb = program("initdb", folder.path());
        initdb.args(["--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]);
        initdb.args(["--username=postgres", "--pwfile=password", "--pgdata=data"]);
        let made = initdb.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let server = Self { child: spawn(folder.path(), port, settings), folder, port };
        until("the server answers", || server.answers());
        server
    }

    fn answers(&self) -> bool {
        on_runtime(async { connect(&self.url("postgres", "postgres")).await.is_some() })
    }

    /// The folder that holds its data and its socket; its own user can read it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The URL of a database, for a role with the password of the tests.
    ///
    /// # Panics
    /// Where the folder's name is not UTF-8.
    #[must_use]
    pub fn url(&self, role: &str, database: &str) -> String {
        let folder = self.folder.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://{role}:{PASSWORD}@{folder}:{}/{database}", self.port)
    }

    /// A connection of its own for a role.
    ///
    /// # Panics
    /// Where there is none to be had.
    #[must_use]
    pub fn session(&self, role: &str, database: &str) -> Session {
        let runtime = runtime();
        let client = runtime.block_on(connect(&self.url(role, database))).unwrap();
        Session { client, runtime }
    }

    /// Runs statements as the superuser, past the gateway.
    ///
    /// # Panics
    /// Where one fails.
    #[expect(clippy::must_use_candidate, reason = "most statements are run for what they change")]
    pub fn sql(&self, database: &str, statements: &str) -> Vec<Vec<String>> {
        self.session("postgres", database).run(statements).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A fast stop, which ends connections; whatever remains is killed.
        let _gone_already = kill_process(Pid::from_child(&self.child), Signal::INT);
        for _ in 0..200 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// One connection past the gateway.
pub struct Session {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Session {
    /// Runs statements one after the other by the simple protocol; all rows, each value as text.
    ///
    /// # Errors
    /// The SQLSTATE of the first that fails.
    pub fn run(&self, statements: &str) -> Result<Vec<Vec<String>>, String> {
        let answers = self.runtime.block_on(self.client.simple_query(statements));
        let answers = answers.map_err(|error| error.code().map_or("none", |code| code.code()).to_owned())?;
        let rows = answers.into_iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|at| row.get(at).unwrap_or("NULL").to_owned()).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }
}

/// An authority, with its certificate as PEM.
fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), certificate)
}

fn program(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(programs().unwrap().join(name));
    command.env_clear().env("LC_ALL", "C.UTF-8").current_dir(folder).stdin(Stdio::null());
    if getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn spawn(folder: &Path, port: u16, settings: &[String]) -> Child {
    let log = fs::File::create(folder.join("log")).unwrap();
    let mut postgres = program("postgres", folder);
    postgres.args(["-D", "data", "-k"]).arg(folder);
    let fixed = ["listen_addresses=", "fsync=off", "max_connections=100", "shared_buffers=16MB"];
    let settings = fixed.iter().copied().chain(settings.iter().map(String::as_str));
    for setting in settings {
        postgres.args(["-c", setting]);
    }
    postgres.args(["-p", &port.to_string()]);
    postgres.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

async fn connect(url: &str) -> Option<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
    tokio::spawn(async move { drop(connection.await) });
    Some(client)
}

fn runtime() -> tokio::runtime::Runtime {
    // A thread of its own reads from the connection.
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(work)
}

impl Project {
    /// A project whose one system is the database `crm` of a server, with these keys besides, these tools, and these users.
    ///
    /// # Panics
    /// Where it cannot be written.
    #[must_use]
    pub fn on_postgres(url: &str, keys: &str, tools: &str, users: &str) -> Self {
        let project = Self::new();
        project.edit("ringfence.toml", |text| {
            let (head, _) = text.split_once("[systems.metrics]").unwrap();
            format!("{head}[systems.crm]\nkind = \"postgres\"\nurl = {{ file = \"crm.url\" }}\n{keys}\n")
        });
        for tool in ["tools/metrics.toml", "tools/python.toml"] {
            fs::remove_file(project.file(tool)).unwrap();
        }
        project.write_private("crm.url", url);
        project.write("tools/crm.toml", tools);
        project.write("users.toml", users);
        project.write("policies/policies.cedar", "permit (principal, action, resource);\n");
        project
    }

    fn write_private(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        self.write(name, text);
        fs::set_permissions(self.file(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A server that listens on loopback with TLS, for the name `localhost`.
pub struct Secure {
    /// The server.
    pub server: Server,
    /// Where it listens.
    pub port: u16,
    /// PEM: who has signed its certificate.
    pub ca: String,
    /// PEM: somebody else of the same name.
    pub other_ca: String,
}

impl Server {
    /// One that speaks TLS, with a certificate from an authority of its own.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start_with_tls() -> Secure {
        let ((authority, ca), (_, other_ca)) = (authority(), authority());
        let key = KeyPair::generate().unwrap();
        let names = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = names.signed_by(&key, &authority).unwrap();
        let keys = tempfile::tempdir().unwrap();
        let [certificate_file, key_file] = ["certificate.pem", "key.pem"].map(|name| keys.path().join(name));
        fs::write(&certificate_file, certificate.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        if getuid().is_root() {
            for path in [keys.path(), &certificate_file, &key_file] {
                chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", certificate_file.display()),
            format!("ssl_key_file={}", key_file.display()),
            "listen_addresses=127.0.0.1".to_owned(),
        ];
        let server = Self::start_with(port, &settings);
        Secure { server, port, ca, other_ca }
    }
}
