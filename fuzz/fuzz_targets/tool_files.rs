//! No tool file brings the loader down, every problem has a place, and a tool that loads shows a schema and judges arguments.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use libfuzzer_sys::fuzz_target;
use ringfence_actions::{ActionSpace, File, SystemKind};
use ringfence_core::{Authorities, Level, Principal, SystemName};

fuzz_target!(|text: &str| {
    let named = |name: &str| SystemName::new(name.to_owned()).expect("a name");
    let systems = BTreeMap::from([
        (named("db"), SystemKind::Sqlite),
        (named("web"), SystemKind::Http),
        (named("box"), SystemKind::Sandbox),
    ]);
    let mut problems = Vec::new();
    let space = ActionSpace::read(&[File { name: "tools/t.toml", text }], &systems, &mut problems);
    for problem in &problems {
        assert!(problem.place.line >= 1 && !problem.instead.is_empty(), "{problem}");
    }
    if problems.iter().any(|problem| problem.level == Level::Error) {
        return;
    }
    let verifier = Authorities::establish().verifier;
    let nobody = Principal::verified(&verifier, "i".into(), "s".into(), BTreeSet::new(), serde_json::Map::new());
    for tool in space.tools() {
        assert_eq!(tool.input_schema()["additionalProperties"], false);
        let _judged = tool.check(&serde_json::Map::new(), &nobody);
    }
});
