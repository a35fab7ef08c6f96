//! The bundle (OCI runtime specification): a root made of nothing but read-only mounts and generated files, and what `runsc` is
//! told of it. All of it is on one tmpfs, which only init's mount namespace has.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree};
use serde_json::{Value, json};

use super::GUEST_NAME;
use super::guest::Task;
use super::launcher::Order;
use crate::jail::{UID, interpreter};
use crate::sys::{Recursive, set_mount_attributes};
use crate::{Layer, Limits, Refused, Resources, Root};

/// Where it stands: any folder that every system has, seen by this mount namespace alone.
const SITE: &str = "/tmp";
pub(super) const BUNDLE: &str = "/tmp/bundle";
pub(super) const STATE: &str = "/tmp/state";
/// What comes in from outside: the program, files in `in`, the guest in `.guest`.
const GIVEN: &str = "/tmp/given";
const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
/// Room for the bundle beside the files that come in, in bytes and in files: this executable, at the most.
const BUNDLE_BYTES: u64 = 128 << 20;
const BUNDLE_FILES: u64 = 1000;
/// The folders that a sandbox has itself, whatever its root is made of.
const OWN_FOLDERS: [&str; 9] = ["etc", "proc", "sys", "dev", "work", "tmp", "program", "artifacts", "run"];

/// What init holds of it.
pub(super) struct Place {
    /// Where files are written that come in; seen inside as read-only folders.
    pub(super) given: OwnedFd,
}

/// Something of the host's, held so that nothing which is mounted later covers it.
enum Held {
    Link(PathBuf),
    Tree(OwnedFd),
}

pub(super) fn build(order: &Order) -> Result<Place, Refused> {
    let layer = |error: io::Error| Refused::new(Layer::OwnRoot.as_str(), error);
    let (base, path) = base(&order.root).map_err(layer)?;
    let interpreter = interpreter(order.language, &path)?;
    let entries = entries(&order.root, &path).map_err(layer)?;
    let etc = etc(&order.root, &path).map_err(layer)?;
    let guest = guest().map_err(layer)?;
    drop(base);
    let limits = &order.limits;
    let options = format!(
        "size={},nr_inodes={},mode=711",
        limits.work_bytes.saturating_add(BUNDLE_BYTES),
        limits.files.saturating_add(BUNDLE_FILES)
    );
    let assembled = || {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", SITE, "tmpfs", flags, CString::new(options)?.as_c_str())?;
        let root = Path::new(BUNDLE).join("rootfs");
        fs::create_dir_all(&root)?;
        fs::create_dir(STATE)?;
        fs::set_permissions(STATE, PermissionsExt::from_mode(0o700))?;
        OWN_FOLDERS.iter().try_for_each(|name| fs::create_dir(root.join(name)))?;
        entries.iter().try_for_each(|(name, held)| put(held, &root.join(name)))?;
        if !root.join("var").exists() {
            fs::create_dir(root.join("var"))?;
        }
        fill_etc(&root.join("etc"), &etc)?;
        let loader = put_guest(&guest)?;
        let task = Task {
            language: order.language,
            resources: order.resources,
            limits: limits.clone(),
            environment: order.environment.clone(),
            interpreter: interpreter.to_owned(),
        };
        let arguments: Vec<String> = loader.into_iter().chain([serde_json::to_string(&task)?]).collect();
        fs::write(Path::new(BUNDLE).join("config.json"), config(order, &arguments).to_string())?;
        open(GIVEN, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
    };
    Ok(Place { given: assembled().map_err(layer)? })
}

/// What a root is made of, held and as a path to it.
fn base(root: &Root) -> io::Result<(OwnedFd, PathBuf)> {
    let folder = match root {
        Root::HostUsr => Path::new("/").to_owned(),
        // An image that was unpacked as a bundle has its file system in a folder of that.
        Root::Folder(folder) if folder.join("config.json").is_file() => folder.join("rootfs"),
        Root::Folder(folder) => folder.clone(),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = open(&folder, flags, Mode::empty()).map_err(|error| {
        let shown = folder.display();
        let what = format!("{shown}: {error}; the sandbox's user has to be able to read it");
        io::Error::new(error.kind(), what)
    })?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    Ok((opened, path))
}

/// What of it is seen in the sandbox: of the host programs and libraries alone, of a folder all but what the sandbox has itself.
fn entries(root: &Root, path: &Path) -> io::Result<Vec<(OsString, Held)>> {
    let names: Vec<OsString> = if *root == Root::HostUsr {
        ["usr", "bin", "sbin", "lib", "lib64"].map(OsString::from).into()
    } else {
        let names =
            fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.into_iter().filter(|name| !OWN_FOLDERS.iter().any(|own| name == own)).collect()
    };
    let mut entries = Vec::new();
    for name in names {
        let from = path.join(&name);
        match fs::symlink_metadata(&from) {
            Ok(found) if found.is_symlink() => entries.push((name, Held::Link(fs::read_link(from)?))),
            Ok(found) if found.is_dir() => entries.push((name, Held::Tree(tree(&from)?))),
            _ => {}
        }
    }
    Ok(entries)
}

/// A copy of a host's mount, read-only, that is mounted nowhere yet. Its sockets lead nowhere and its locks are the sandbox's
/// own: the gofer opens regular files and folders alone.
fn tree(from: &Path) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, from, flags)?;
    set_mount_attributes(&tree, READ_ONLY, Recursive::Yes)?;
    Ok(tree)
}

fn put(held: &Held, to: &Path) -> io::Result<()> {
    match held {
        Held::Link(target) => symlink(target, to),
        Held::Tree(tree) => {
            fs::create_dir(to)?;
            attach(tree, to)
        }
    }
}

fn attach(tree: &OwnedFd, to: &Path) -> io::Result<()> {
    Ok(move_mount(tree, "", CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// What comes from the base's own `/etc`.
enum Etc {
    /// Where the interpreter's libraries and alternative commands are found. Neither says anything of the host but its packages.
    Host { cache: Option<Vec<u8>>, alternatives: Option<OwnedFd> },
    /// A folder's own; what is generated is put over it where it is not there.
    Folder(Option<OwnedFd>),
}

fn etc(root: &Root, path: &Path) -> io::Result<Etc> {
    let theirs = path.join("etc");
    let folder = |path: PathBuf| if path.is_dir() { tree(&path).map(Some) } else { Ok(None) };
    if *root != Root::HostUsr {
        return Ok(Etc::Folder(folder(theirs)?));
    }
    let cache = fs::read(theirs.join("ld.so.cache")).ok();
    Ok(Etc::Host { cache, alternatives: folder(theirs.join("alternatives"))? })
}

fn fill_etc(to: &Path, etc: &Etc) -> io::Result<()> {
    if let Etc::Folder(Some(theirs)) = etc {
        return attach(theirs, to);
    }
    fs::write(to.join("passwd"), "sandbox:x:1000:1000::/work:/usr/bin/bash\n")?;
    fs::write(to.join("group"), "sandbox:x:1000:\n")?;
    fs::write(to.join("hosts"), "127.0.0.1 localhost sandbox\n::1 localhost\n")?;
    fs::write(to.join("nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files\n")?;
    let Etc::Host { cache, alternatives } = etc else { return Ok(()) };
    if let Some(cache) = cache {
        fs::write(to.join("ld.so.cache"), cache)?;
    }
    match alternatives {
        Some(tree) => put(&Held::Tree(tree.try_clone()?), &to.join("alternatives")),
        None => Ok(()),
    }
}

/// This executable and the libraries that it runs with, each as a mount: so that it runs in a root that has none of them.
struct Guest {
    executable: Executable,
    libraries: Vec<(OsString, OwnedFd)>,
    loader: Option<OsString>,
}

enum Executable {
    Mount(OwnedFd),
    /// Its path leads elsewhere by now, or nowhere for the sandbox's user: it is copied.
    File(fs::File),
}

impl Executable {
    fn own(path: &Path) -> io::Result<Self> {
        let file = fs::File::open("/proc/self/exe")?;
        let own = file.metadata()?;
        let is_own = fs::metadata(path).is_ok_and(|at| (at.dev(), at.ino()) == (own.dev(), own.ino()));
        if is_own { tree(path).map(Self::Mount) } else { Ok(Self::File(file)) }
    }

    fn put(&self, to: &Path) -> io::Result<()> {
        let mut empty = fs::File::create(to)?;
        empty.set_permissions(fs::Permissions::from_mode(0o555))?;
        match self {
            Self::Mount(tree) => attach(tree, to),
            Self::File(file) => io::copy(&mut file.try_clone()?, &mut empty).map(drop),
        }
    }
}

fn guest() -> io::Result<Guest> {
    let own = fs::read_link("/proc/self/exe")?;
    let executable = Executable::own(&own)?;
    let mut libraries: Vec<(OsString, OwnedFd)> = Vec::new();
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let Some(path) = line.find('/').and_then(|at| line.get(at..)).map(Path::new) else { continue };
        let Some(name) = path.file_name().filter(|_| path != own && path.is_file()) else { continue };
        if !libraries.iter().any(|(known, _)| known == name) {
            libraries.push((name.to_owned(), tree(path)?));
        }
    }
    let is_loader = |name: &&OsString| name.to_string_lossy().starts_with("ld-");
    let loader = libraries.iter().map(|(name, _)| name).find(is_loader).cloned();
    Ok(Guest { executable, libraries, loader })
}

/// Puts it where the sandbox sees it, and says how it is started there.
fn put_guest(guest: &Guest) -> io::Result<Vec<String>> {
    let folder = Path::new(GIVEN).join(".guest");
    fs::create_dir_all(&folder)?;
    fs::create_dir(Path::new(GIVEN).join("in"))?;
    let put = |name: &OsString, tree: &OwnedFd| {
        let to = folder.join(name);
        fs::write(&to, "")?;
        attach(tree, &to)
    };
    guest.executable.put(&folder.join(GUEST_NAME))?;
    guest.libraries.iter().try_for_each(|(name, tree)| put(name, tree))?;
    let inside = |name: &str| format!("/program/.guest/{name}");
    let executable = inside(GUEST_NAME);
    Ok(match &guest.loader {
        Some(loader) => vec![
            inside(&loader.to_string_lossy()),
            "--library-path".to_owned(),
            "/program/.guest".to_owned(),
            executable,
        ],
        None => vec![executable],
    })
}

/// What `runsc` is told. No user namespace: there is one already, and the container's users are the sentry's alone.
fn config(order: &Order, arguments: &[String]) -> Value {
    let limits = &order.limits;
    let tmpfs = |to: &str, bytes: u64| {
        let options = vec![
            "nosuid".to_owned(),
            "nodev".to_owned(),
            "mode=0700".to_owned(),
            format!("uid={UID}"),
            format!("gid={UID}"),
            format!("size={bytes}"),
        ];
        json!({ "destination": to, "type": "tmpfs", "source": "tmpfs", "options": options })
    };
    let given = |to: &str, from: String| {
        json!({
            "destination": to, "type": "bind", "source": from,
            "options": ["rbind", "ro", "nosuid", "nodev"],
        })
    };
    let none: [&str; 0] = [];
    let namespaces = ["pid", "mount", "ipc", "uts", "network"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.0",
        "hostname": "sandbox",
        "root": { "path": "rootfs", "readonly": true },
        "process": {
            "terminal": false,
            "user": { "uid": UID, "gid": UID },
            "args": arguments,
            "env": none,
            "cwd": "/work",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": none, "effective": none, "inheritable": none, "permitted": none, "ambient": none,
            },
            "rlimits": rlimits(limits, order.resources),
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"] },
            // Left out, the sentry puts its own there.
            { "destination": "/sys", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "mode=0555", "size=4096"] },
            tmpfs("/dev/shm", limits.temporary_bytes),
            tmpfs("/tmp", limits.temporary_bytes),
            tmpfs("/work", limits.work_bytes),
            tmpfs("/artifacts", limits.artifact_bytes),
            given("/program", GIVEN.to_owned()),
            given("/work/in", format!("{GIVEN}/in")),
        ],
        "linux": {
            "namespaces": namespaces,
        },
    })
}

/// What each process inside may have, by itself: the sentry keeps these.
fn rlimits(limits: &Limits, resources: Resources) -> Vec<Value> {
    let seconds = limits.wall.as_secs().saturating_add(1);
    let mut wanted = vec![
        ("RLIMIT_CORE", 0),
        ("RLIMIT_CPU", seconds.saturating_mul(limits.cpu_millicores.div_ceil(1000))),
        ("RLIMIT_FSIZE", limits.work_bytes),
        ("RLIMIT_NOFILE", 4096),
        ("RLIMIT_NPROC", limits.processes.saturating_add(1)),
        ("RLIMIT_MEMLOCK", 0),
    ];
    if resources == Resources::RlimitsOnly {
        wanted.push(("RLIMIT_AS", limits.memory_bytes));
    }
    wanted.into_iter().map(|(kind, most)| json!({ "type": kind, "soft": most, "hard": most })).collect()
}
