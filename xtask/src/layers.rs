//! `cargo xtask layers`: the walls between the crates, who may name what, and whether the documents speak of what is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::root;

/// Which of ours each crate may use. What stands on the right stands nowhere to the left of it.
const MAY_USE: &[(&str, &[&str])] = &[
    ("addresses", &[]),
    ("core", &[]),
    ("mcp", &[]),
    ("sandbox", &["addresses"]),
    ("actions", &["core"]),
    ("identity", &["addresses", "core"]),
    ("store", &["core"]),
    ("policy", &["actions", "core"]),
    ("tools", &["mcp", "sandbox", "identity", "actions", "core"]),
    ("gateway", &["mcp", "tools", "identity", "store", "policy", "actions", "core"]),
    ("console", &["gateway", "core"]),
    (
        "cli",
        &["console", "gateway", "tools", "mcp", "sandbox", "store", "identity", "policy", "actions", "core"],
    ),
];

/// Dependencies that only some crates may have.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("cedar-policy", &["policy"]),
    ("clap", &["cli"]),
    ("jsonwebtoken", &["identity"]),
    ("libc", &["sandbox"]),
    // `init` writes sample data and `demo` looks past the gateway: docs/decisions/0006-sql-in-the-cli.md.
    ("rusqlite", &["store", "tools", "cli"]),
    ("seccompiler", &["sandbox"]),
    ("tokio-postgres", &["tools"]),
    ("toml", &["actions", "cli"]),
];

/// A word that only some files may say outside of tests, and why.
struct Word {
    pattern: &'static str,
    files: &'static [&'static str],
    why: &'static str,
}

const WORDS: &[Word] = &[
    Word {
        pattern: r"Authorities::establish",
        files: &["cli/src/wiring.rs"],
        why: "the authorities are made once, by the wiring",
    },
    Word {
        pattern: r"\bDecider\b",
        files: &["core/src/", "policy/src/"],
        why: "only the policy engine may permit",
    },
    Word {
        pattern: r"\bRecorder\b",
        files: &["core/src/", "store/src/", "cli/src/wiring.rs"],
        why: "only the journal may make tickets",
    },
    Word {
        pattern: r"\bVerifier\b",
        files: &["core/src/", "identity/src/", "cli/src/wiring.rs", "cli/src/trust.rs"],
        why: "only the token check may make principals",
    },
    Word { pattern: r"Permit::grant", files: &["policy/src/"], why: "only a decision permits" },
    Word { pattern: r"Ticket::issue", files: &["store/src/"], why: "only what is recorded runs" },
    Word {
        pattern: r"Principal::verified",
        files: &["identity/src/identify.rs"],
        why: "only a verified token names a principal",
    },
    Word {
        pattern: r"ringfence_tools::run\b",
        files: &["gateway/src/pipeline.rs"],
        why: "there is one way to an effect",
    },
    Word {
        pattern: r"\bdangerously_with",
        files: &["sandbox/src/profile.rs"],
        why: "no sandbox runs without a layer",
    },
    Word { pattern: r"\bunsafe\b", files: &["sandbox/src/sys.rs"], why: "all of it is in one file" },
    Word {
        pattern: r"rusqlite",
        files: &["store/src/", "tools/src/sqlite/", "cli/src/commands/init.rs", "cli/src/demo/"],
        why: "SQL belongs to the journal and the tools",
    },
    Word {
        pattern: r"tokio_postgres",
        files: &["tools/src/postgres/"],
        why: "SQL belongs to the journal and the tools",
    },
    Word {
        pattern: r"\b(batch_execute|simple_query)",
        files: &[],
        why: "the simple protocol takes several statements at once",
    },
    Word {
        pattern: r"println!|print!",
        files: &["cli/src/", "core/src/secret.rs"],
        why: "only the command line prints",
    },
];

/// The longest architecture that a newcomer reads, in lines.
const ARCHITECTURE_LINES_MAX: usize = 250;

pub(crate) fn run() -> Result<(), String> {
    let sources = sources()?;
    let mut broken = Vec::new();
    for (name, uses) in MAY_USE {
        let manifest = read(&root().join("crates").join(name).join("Cargo.toml"))?;
        broken.extend(manifest_breaks(name, uses, &manifest)?);
    }
    broken.extend(sources.iter().flat_map(|(path, text)| source_breaks(path, text)));
    let tests: BTreeSet<String> = sources.iter().flat_map(|(_, text)| functions(text)).collect();
    broken.extend(document_breaks("ARCHITECTURE.md", &read(&root().join("ARCHITECTURE.md"))?, &tests));
    broken.extend(document_breaks("PROMISES.md", &read(&root().join("PROMISES.md"))?, &tests));
    if broken.is_empty() {
        println!("\nlayers: {} crates and {} files keep their walls", MAY_USE.len(), sources.len());
        return Ok(());
    }
    Err(format!("layers: {} walls are broken\n  {}", broken.len(), broken.join("\n  ")))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("`{}`: {error}", path.display()))
}

/// Every source file of the crates and of the tests, by its path below `crates` or the root.
fn sources() -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    for (top, base) in [("crates", root().join("crates")), ("tests", root())] {
        let mut folders = vec![root().join(top)];
        while let Some(folder) = folders.pop() {
            let entries =
                fs::read_dir(&folder).map_err(|error| format!("`{}`: {error}", folder.display()))?;
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name: PathBuf = path.strip_prefix(&base).map(PathBuf::from).unwrap_or_default();
                    found.push((name.display().to_string(), read(&path)?));
                }
            }
        }
    }
    Ok(found)
}

fn manifest_breaks(name: &str, uses: &[&str], manifest: &str) -> Result<Vec<String>, String> {
    let parsed: toml::Table = manifest.parse().map_err(|error| format!("crates/{name}: {error}"))?;
    let dependencies =
        parsed.get("dependencies").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let mut broken = Vec::new();
    for dependency in dependencies.keys() {
        if let Some(ours) = dependency.strip_prefix("ringfence-")
            && !uses.contains(&ours)
        {
            broken.push(format!("crates/{name} uses {ours}: it may use only {uses:?}"));
        }
        let only = ONLY_IN.iter().find(|(held, _)| held == dependency);
        if let Some((held, crates)) = only.filter(|(_, crates)| !crates.contains(&name)) {
            broken.push(format!("crates/{name} uses {held}: only {crates:?} may"));
        }
    }
    Ok(broken)
}

fn source_breaks(path: &str, text: &str) -> Vec<String> {
    let is_test = path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("tests.rs");
    if is_test || !path.contains("/src/") {
        return Vec::new();
    }
    let code = without_tests_and_comments(text);
    let broken = WORDS.iter().filter(|word| !word.files.iter().any(|file| path.starts_with(file)));
    let broken = broken.filter(|word| Regex::new(word.pattern).is_ok_and(|pattern| pattern.is_match(&code)));
    broken.map(|word| format!("crates/{path} says `{}`: {}", word.pattern, word.why)).collect()
}

fn without_tests_and_comments(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn functions(text: &str) -> Vec<String> {
    let Ok(pattern) = Regex::new(r"fn ([a-z0-9_]+)\(") else { return Vec::new() };
    pattern.captures_iter(text).filter_map(|found| Some(found.get(1)?.as_str().to_owned())).collect()
}

/// A path or a test that a document names and that is not there, and an architecture that nobody would read to its end.
fn document_breaks(name: &str, text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut broken = Vec::new();
    if name == "ARCHITECTURE.md" && text.lines().count() > ARCHITECTURE_LINES_MAX {
        broken.push(format!("{name} has more than {ARCHITECTURE_LINES_MAX} lines"));
    }
    let Ok(quoted) = Regex::new("`([^`\n]+)`") else { return broken };
    for word in quoted.captures_iter(text).filter_map(|found| Some(found.get(1)?.as_str())) {
        let is_path = word.contains('/')
            && ["crates/", "tests/", "xtask/", "fuzz/", "docs/", "examples/", ".ci/"]
                .iter()
                .any(|top| word.starts_with(top));
        if is_path && !word.contains('*') && !root().join(word).exists() {
            broken.push(format!("{name} names `{word}`, which does not exist"));
        }
        let is_test = word.matches('_').count() >= 3
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_test
            && word.chars().all(|char| !char.is_ascii_uppercase())
            && !tests.contains(word)
            && !is_known(word)
        {
            broken.push(format!("{name} names the test `{word}`, which does not exist"));
        }
    }
    broken
}

/// Names with many underscores that are not tests.
fn is_known(word: &str) -> bool {
    ["get_user_monthly_metrics"].contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_wall_is_found() {
        let upward = "[dependencies]\nringfence-gateway = { path = \"x\" }\nrusqlite = \"1\"\n";
        assert_eq!(manifest_breaks("core", &[], upward).map(|broken| broken.len()), Ok(2));
        assert_eq!(
            manifest_breaks("console", &["gateway"], "[dependencies]\nringfence-gateway = \"1\"\n"),
            Ok(vec![])
        );
        let grants = "fn f(by: &Decider) {\n    Permit::grant(by, call, rules)\n}\n";
        assert_eq!(source_breaks("gateway/src/x.rs", grants).len(), 2);
        assert_eq!(source_breaks("policy/src/decide.rs", grants), Vec::<String>::new());
        let in_tests = format!("// Permit::grant\n#[cfg(test)]\nmod tests {{\n{grants}}}\n");
        assert_eq!(source_breaks("gateway/src/x.rs", &in_tests), Vec::<String>::new());
    }

    #[test]
    fn a_document_that_names_what_is_not_there_is_found() {
        let tests = BTreeSet::from(["it_is_really_there".to_owned()]);
        let text = "`crates/core` `crates/nowhere` `it_is_really_there` `it_is_not_there`";
        assert_eq!(document_breaks("PROMISES.md", text, &tests).len(), 2);
        assert_eq!(document_breaks("ARCHITECTURE.md", &"line\n".repeat(251), &tests).len(), 1);
    }
}
