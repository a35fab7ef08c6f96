//! Fuzzing with libFuzzer on the stable toolchain: the coverage that `cargo fuzz` asks a nightly for comes from the same LLVM
//! pass, named by hand. Inputs that were interesting are kept in `fuzz/corpus`, those that crashed in `fuzz/artifacts`.

use std::fs;
use std::process::Command;

use crate::{root, step};

const TARGETS: [&str; 2] = ["json_reader", "tool_files"];
/// LLVM's `SanitizerCoverage` as libFuzzer wants it.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Clink-dead-code";

/// What libFuzzer cannot be built without, in words, where it is missing.
pub(crate) fn missing() -> Option<String> {
    let is_there = || step::is_there("c++", &["--version"]);
    let can = is_there() || (step::install_debian("g++") && is_there());
    (!can).then(|| "fuzzing: a C++ compiler is missing (Debian: g++)".to_owned())
}

pub(crate) fn run(seconds: u64) -> Result<(), String> {
    let host = host()?;
    let mut build = Command::new(env!("CARGO"));
    // With a target named, the flags are not those of build scripts.
    build.args(["build", "--release", "--quiet", "--manifest-path", "fuzz/Cargo.toml", "--target", &host]);
    step::run(build.env("RUSTFLAGS", FLAGS))?;
    for target in TARGETS {
        let (corpus, seeds) =
            (root().join("fuzz/corpus").join(target), root().join("fuzz/seeds").join(target));
        let artifacts = root().join("fuzz/artifacts").join(target);
        for folder in [&corpus, &artifacts] {
            fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        }
        let mut fuzz = Command::new(root().join("fuzz/target").join(&host).join("release").join(target));
        fuzz.arg(format!("-max_total_time={seconds}"))
            .args([
                "-max_len=4096",
                "-timeout=10",
                "-rss_limit_mb=2048",
                "-print_final_stats=1",
                "-verbosity=0",
            ])
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args([corpus, seeds]);
        println!("\nfuzzing {target} for {seconds} s");
        let output = fuzz.output().map_err(|error| error.to_string())?;
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            println!("{log}");
            return Err(format!("`{target}` failed; the input is in `{}`", artifacts.display()));
        }
        log.lines().filter(|line| line.starts_with("stat::")).for_each(|line| println!("  {line}"));
    }
    Ok(())
}

fn host() -> Result<String, String> {
    let output =
        Command::new("rustc").args(["--version", "--verbose"]).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "`rustc --version --verbose` names no host".to_owned())
}
