//! A sandbox that waits while its image is updated.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ringfence_sandbox::{Program, Root, Sandbox, Session, Unwatched};
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{ensure, verdict};
use crate::probe::Verdict;
use crate::run::{Stage, Target, run};

pub(crate) const LIST: &[(&str, &str, bool)] = &[("L10", "a stale slot", true)];

/// Which file the interpreter is that runs this.
const WHICH: &str = "import os\nprint(os.stat('/proc/self/exe').st_ino)";

pub(crate) async fn play(stage: &mut Stage, target: &Target) -> Verdict {
    verdict(updated(stage, target).await)
}

async fn updated(stage: &Stage, target: &Target) -> Result<String, String> {
    let folder = tempfile::Builder::new().prefix("image").tempdir_in(&stage.places.folder).unwrap();
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), open_to_all).unwrap();
    let interpreter = make_image(folder.path());
    let mut profile = target.profile.clone();
    (profile.root, profile.ready) = (Root::Folder(folder.path().to_owned()), 2);
    let sandbox = Sandbox::new(profile);
    sandbox.warm().await.map_err(|refused| format!("control: {refused}"))?;
    let mut waits = sandbox.session().await.map_err(|refused| format!("control: {refused}"))?;
    let old = inode(&interpreter);
    ensure(which(&sandbox).await? == old, || "control: it does not run what is in the image".to_owned())?;
    // Two of the old wait again.
    sandbox.warm().await.map_err(|refused| format!("control: {refused}"))?;
    let beside = interpreter.with_extension("new");
    fs::copy(&interpreter, &beside).unwrap();
    fs::rename(&beside, &interpreter).unwrap();
    let new = inode(&interpreter);
    let waited = which_in(&mut waits).await?;
    ensure(new != old && waited == old, || {
        format!("control: what was built before runs {waited}; {old} before, {new} after")
    })?;
    for _ in 0..4 {
        let found = which(&sandbox).await?;
        ensure(found == new, || format!("a stale sandbox was used: it runs {found}, not {new}"))?;
    }
    sandbox.close().await;
    Ok("one that was taken before runs the old interpreter, none that is taken after; that none waits for more than ten minutes is not tried".to_owned())
}

/// The interpreter with its library, and nothing else. The path of the interpreter.
fn make_image(folder: &Path) -> PathBuf {
    let lines = |command: &mut Command| {
        String::from_utf8(command.output().unwrap().stdout).unwrap().lines().map(str::to_owned).collect()
    };
    let told = "import os, sys, sysconfig; print(os.path.realpath(sys.executable)); print(sysconfig.get_path('stdlib'))";
    let told: Vec<String> = lines(Command::new("/usr/bin/python3").args(["-I", "-c", told]));
    for name in ["usr/bin", "proc", "work"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let interpreter = folder.join("usr/bin/python3");
    fs::copy(&told[0], &interpreter).unwrap();
    copy_library(Path::new(&told[1]), &folder.join(told[1].trim_start_matches('/')));
    let modules = fs::read_dir(Path::new(&told[1]).join("lib-dynload")).into_iter().flatten().flatten();
    let modules = modules.map(|module| module.path());
    // Only this one of them needs a library that the interpreter does not.
    let modules = modules.filter(|path| path.to_string_lossy().contains("_ctypes."));
    let libraries: Vec<String> = lines(Command::new("ldd").arg(&told[0]).args(modules));
    let words = libraries.iter().flat_map(|line| line.split_whitespace());
    let paths: BTreeSet<&str> = words.filter(|word| word.starts_with('/') && !word.ends_with(':')).collect();
    for path in paths {
        let to = folder.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
    interpreter
}

/// What a start needs; not its tests, and no byte code.
fn copy_library(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let is_left_out =
            ["test", "__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3"].contains(&&*name);
        if path.is_dir() && !is_left_out && !name.starts_with("config-") {
            copy_library(&path, &to.join(entry.file_name()));
        } else if path.is_file() && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            fs::copy(&path, to.join(entry.file_name())).unwrap();
        }
    }
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

async fn which(sandbox: &Sandbox) -> Result<u64, String> {
    let outcome = run(sandbox, WHICH).await.map_err(|refused| format!("control: {refused}"))?;
    outcome.stdout.text.trim().parse().map_err(|_| format!("control: {outcome:?}"))
}

async fn which_in(session: &mut Session) -> Result<u64, String> {
    let outcome = session.run(Program::new(WHICH), Arc::new(Unwatched), CancellationToken::new()).await;
    let outcome = outcome.map_err(|refused| format!("control: {refused}"))?;
    outcome.stdout.text.trim().parse().map_err(|_| format!("control: {outcome:?}"))
}
