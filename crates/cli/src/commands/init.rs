//! `ringfence init`: a project that works as it stands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ringfence_sandbox::probe;
use rusqlite::Connection;

use crate::failure::Failure;

/// The files of a new project.
pub(crate) const TEMPLATE: &[(&str, &str)] = &[
    ("ringfence.toml", include_str!("../template/ringfence.toml")),
    ("users.toml", include_str!("../template/users.toml")),
    ("tools/metrics.toml", include_str!("../template/metrics.toml")),
    ("tools/python.toml", include_str!("../template/python.toml")),
    ("policies/policies.cedar", include_str!("../template/policy.cedar")),
    (".gitignore", include_str!("../template/gitignore")),
];
const SAMPLE: &str = include_str!("../template/metrics.sql");
const DATABASE: &str = "metrics.db";

pub(crate) fn run(dir: &Path) -> Result<ExitCode, Failure> {
    let names = TEMPLATE.iter().map(|(name, _)| *name).chain([DATABASE]);
    if let Some(there) = names.map(|name| dir.join(name)).find(|path| path.exists()) {
        let message = format!("`{}` is there already, and nothing was written", there.display());
        return Err(Failure::new(message, "name another folder, or move that file away"));
    }
    let mut written = Vec::new();
    if let Err(error) = write(dir, &mut written) {
        // A project is written as a whole or not at all.
        for path in written.iter().rev() {
            let _gone_already = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
        let message = format!("the project cannot be written to `{}`: {error}", dir.display());
        return Err(Failure::new(message, "make the folder writable for this user, or name another one"));
    }
    let shown = dir.display();
    anstream::println!(
        "A project stands in `{shown}`: SQLite sample data, two tools, one sandbox, three users, commented policies."
    );
    if probe().cgroup.is_none() {
        anstream::println!(
            "This user cannot make cgroups here, so its sandbox limits each process by itself (`resources = \"rlimits\"`)."
        );
    }
    anstream::println!("\nNext:\n  ringfence check {shown}");
    anstream::println!(
        "  ringfence call get_user_monthly_metrics user_id=u-1 month=2026-10 --as bob --project {shown}"
    );
    anstream::println!("  ringfence call run_python 'code=print(6*7)' --as bob --project {shown}");
    anstream::println!("  ringfence serve {shown}");
    Ok(ExitCode::SUCCESS)
}

fn write(dir: &Path, written: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for folder in [dir.to_owned(), dir.join("tools"), dir.join("policies")] {
        if !folder.is_dir() {
            fs::create_dir_all(&folder)?;
            written.push(folder);
        }
    }
    for (name, text) in TEMPLATE {
        let path = dir.join(name);
        written.push(path.clone());
        fs::write(&path, fit_to_machine(text))?;
    }
    written.push(dir.join(DATABASE));
    write_sample_database(dir).map_err(std::io::Error::other)
}

/// The strongest sandbox that this machine and user can have.
pub(crate) fn fit_to_machine(text: &str) -> String {
    let egress = "egress = []                       # no network at all\n";
    if probe().cgroup.is_some() {
        return text.to_owned();
    }
    let weaker = "resources = \"rlimits\"             # limits of each process; write `cgroup` where the service may make cgroups\n";
    text.replace(egress, &format!("{egress}{weaker}"))
}

pub(crate) fn write_sample_database(dir: &Path) -> rusqlite::Result<()> {
    Connection::open(dir.join(DATABASE))?.execute_batch(&format!("BEGIN; {SAMPLE} COMMIT;"))
}
