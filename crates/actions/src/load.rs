//! Reads `tools/*.toml` into tools, with every problem of every file in one go.

use std::collections::BTreeMap;

use ringfence_core::{Effect, Label, Level, ParamName, Place, Problem, SystemName, ToolName};
use toml::Spanned;

use crate::file::{File, Table, list};
use crate::tool::{Limits, SystemKind, Tool};
use crate::{ActionSpace, Operation, Param, ParamType, Scalar, Source, operation};

/// The longest description that a model is shown, in characters.
const DESCRIBE_MAX: usize = 2_000;

impl ActionSpace {
    /// Reads the tool files of a project whose systems are `systems`.
    ///
    /// Every problem of every file is pushed; the tools that have none are in the result, so that what depends on them
    /// can be checked too. A project with any error must not be served.
    pub fn read(
        files: &[File<'_>],
        systems: &BTreeMap<SystemName, SystemKind>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut tools: BTreeMap<ToolName, Tool> = BTreeMap::new();
        for file in files {
            for tool in read_file(*file, systems, problems) {
                if let Some(first) = tools.get(tool.name()) {
                    let what = format!("`{}` is declared twice", tool.name());
                    let instead = format!("rename one of them: the first stands at {}", first.place());
                    problems.push(Problem::error(tool.place().clone(), what, instead));
                    continue;
                }
                tools.insert(tool.name().clone(), tool);
            }
        }
        Self::new(tools)
    }
}

fn read_file(
    file: File<'_>,
    systems: &BTreeMap<SystemName, SystemKind>,
    problems: &mut Vec<Problem>,
) -> Vec<Tool> {
    let Some(mut root) = file.parse(problems) else { return Vec::new() };
    let tables = root.tables(problems);
    tables.into_iter().filter_map(|(name, table)| read_tool(file, &name, table, systems, problems)).collect()
}

fn read_tool(
    file: File<'_>,
    name: &Spanned<String>,
    mut table: Table<'_>,
    systems: &BTreeMap<SystemName, SystemKind>,
    problems: &mut Vec<Problem>,
) -> Option<Tool> {
    let before = errors(problems);
    let place = file.place(&name.span());
    let name = ToolName::new(name.get_ref().clone())
        .map_err(|bad| problems.push(Problem::error(place.clone(), bad.to_string(), "rename the table")))
        .ok();
    let system = take_system(&mut table, systems, problems);
    let effect = take_effect(&mut table, problems);
    let describe = take_describe(&mut table, problems);
    let external = table.take::<bool>("external", problems).map(Spanned::into_inner);
    let declared_yields = take_labels(&mut table, problems);
    let scope = take_scope(&mut table, problems);
    let scopes = take_scopes(&mut table, problems);
    let limits = take_limits(&mut table, problems);
    let (declared, params) = take_params(&mut table, problems);
    let operation = match &system {
        Some((_, kind)) => operation::take(&mut table, *kind, file, problems),
        None => None,
    };
    if system.is_none() {
        // Without its kind no one can say which of these fits; the missing system is problem enough.
        for key in ["sql", "program"] {
            drop(table.take::<String>(key, &mut Vec::new()));
        }
        drop(table.table("http", &mut Vec::new()));
    }
    table.finish(problems);
    let (system, kind) = system?;
    let external = external.unwrap_or(kind == SystemKind::Http);
    // What another system answers may have been written by anyone, unless the owner says otherwise.
    let yields = declared_yields
        .unwrap_or_else(|| if kind == SystemKind::Http { vec![Label::Untrusted] } else { Vec::new() });
    let operation = operation?;
    check_uses(&operation, &declared, &params, &place, problems);
    check_get(&operation, effect?, &place, problems);
    check_program(&operation, &params, problems);
    let tool = Tool {
        name: name?,
        system,
        effect: effect?,
        external,
        yields,
        describe: describe?,
        params,
        operation,
        limits,
        scope,
        scopes,
        place,
    };
    (errors(problems) == before).then_some(tool)
}

fn errors(problems: &[Problem]) -> usize {
    problems.iter().filter(|problem| problem.level == Level::Error).count()
}

/// The program is a text that the agent must send; a file of it is a text.
fn check_program(operation: &Operation, params: &[Param], problems: &mut Vec<Problem>) {
    let Operation::Program { source, files } = operation else { return };
    for param in params.iter().filter(|param| files.values().any(|file| file == param.name())) {
        if !matches!(param.kind(), ParamType::Scalar(Scalar::String { .. })) {
            let what = format!("`{}` is not a text, so it cannot be a file", param.name());
            problems.push(Problem::error(param.place().clone(), what, "write `type = \"string\"`"));
        }
    }
    let Some(param) = params.iter().find(|param| param.name() == source) else { return };
    let is_text = matches!(param.kind(), ParamType::Scalar(Scalar::String { .. }));
    if is_text && !param.optional() && *param.source() == Source::Agent {
        return;
    }
    let what = format!("`{source}` is not a text that every call sends, so it cannot be the program");
    problems.push(Problem::error(
        param.place().clone(),
        what,
        "write `type = \"string\"`, without `optional` or `from`",
    ));
}

fn take_system(
    table: &mut Table<'_>,
    systems: &BTreeMap<SystemName, SystemKind>,
    problems: &mut Vec<Problem>,
) -> Option<(SystemName, SystemKind)> {
    let name = table.require::<String>("system", problems)?;
    if let Some((known, kind)) = systems.get_key_value(name.get_ref().as_str()) {
        return Some((known.clone(), *kind));
    }
    let known: Vec<&str> = systems.keys().map(SystemName::as_str).collect();
    let instead = if known.is_empty() {
        format!("declare `[systems.{}]` in ringfence.toml", name.get_ref())
    } else {
        format!("write one of {}, or declare `[systems.{}]` in ringfence.toml", list(&known), name.get_ref())
    };
    problems.push(Problem::error(
        table.place_of(&name),
        format!("system `{}` is not declared", name.get_ref()),
        instead,
    ));
    None
}

fn take_effect(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Effect> {
    let Some(word) = table.take::<String>("effect", problems) else {
        if !table.has("effect") {
            let what = "`effect` is missing, so the tool counts as `irreversible`";
            problems.push(Problem::warn(
                table.place(),
                what,
                "say `effect = \"read\"`, `\"write\"` or `\"irreversible\"`",
            ));
        }
        return Some(Effect::Irreversible);
    };
    let effect = [Effect::Read, Effect::Write, Effect::Irreversible]
        .into_iter()
        .find(|effect| effect.as_str() == word.get_ref());
    if effect.is_none() {
        let what = format!("`{}` is not an effect", word.get_ref());
        problems.push(Problem::error(table.place_of(&word), what, "write `read`, `write` or `irreversible`"));
    }
    effect
}

fn take_describe(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<String> {
    let text = table.require::<String>("describe", problems)?;
    let (place, text) = (table.place_of(&text), text.into_inner());
    if text.trim().is_empty() || text.chars().count() > DESCRIBE_MAX {
        let instead =
            format!("say in 1 to {DESCRIBE_MAX} characters what the tool is for and when to use it");
        problems.push(Problem::error(place, "`describe` is empty or too long", instead));
        return None;
    }
    Some(text)
}

fn take_labels(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Vec<Label>> {
    let words = table.take::<Vec<String>>("yields", problems)?;
    let place = table.place_of(&words);
    let named =
        |word: &String| [Label::Untrusted, Label::Sensitive].into_iter().find(|label| label.as_str() == word);
    let mut labels = Vec::new();
    for word in words.get_ref() {
        if let Some(label) = named(word) {
            labels.push(label);
        } else {
            let instead = "write `untrusted` or `sensitive`";
            problems.push(Problem::error(place.clone(), format!("`{word}` is not a label"), instead));
        }
    }
    Some(labels)
}

/// A scope token (RFC 6749 §3.3).
fn take_scope(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<String> {
    let scope = table.take::<String>("scope", problems)?;
    if is_scope(scope.get_ref()) {
        return Some(scope.into_inner());
    }
    let what = format!("`{}` is not one scope", scope.get_ref());
    problems.push(Problem::error(
        table.place_of(&scope),
        what,
        "write one scope without spaces, quotes or backslashes",
    ));
    None
}

/// The scopes of the credential that the system is shown.
fn take_scopes(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Vec<String>> {
    let scopes = table.take::<Vec<String>>("scopes", problems)?;
    if let Some(bad) = scopes.get_ref().iter().find(|scope| !is_scope(scope)) {
        let instead = "write each scope for itself, without spaces, quotes or backslashes";
        problems.push(Problem::error(table.place_of(&scopes), format!("`{bad}` is not one scope"), instead));
        return None;
    }
    Some(scopes.into_inner())
}

fn is_scope(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    !text.is_empty() && text.bytes().all(legal)
}

fn take_limits(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Limits {
    let default = Limits::default();
    let Some(mut limits) = table.has("limits").then(|| table.table("limits", problems)).flatten() else {
        return default;
    };
    let rows = limits.number("rows", 1..=10_000, problems).unwrap_or(default.rows);
    let seconds = limits.number("seconds", 1..=600, problems).unwrap_or(default.seconds);
    let changed_rows = limits.number("changed-rows", 1..=100_000, problems).unwrap_or(default.changed_rows);
    let expect_rows = limits.number("expect-rows", 0..=100_000, problems);
    let bytes = limits.size("size", 1 << 10..=64 << 20, problems).unwrap_or(default.bytes);
    limits.finish(problems);
    Limits { rows, seconds, bytes, changed_rows, expect_rows }
}

/// The names of all declared parameters, and those of them that could be read.
fn take_params(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> (Vec<ParamName>, Vec<Param>) {
    let Some(mut params) = table.has("params").then(|| table.table("params", problems)).flatten() else {
        return (Vec::new(), Vec::new());
    };
    let (mut declared, mut read) = (Vec::new(), Vec::new());
    for (name, table) in params.tables(problems) {
        let place = params.place_of(&name);
        match ParamName::new(name.into_inner()) {
            Ok(name) => {
                declared.push(name.clone());
                read.extend(Param::take(name, table, problems));
            }
            Err(bad) => problems.push(Problem::error(place, bad.to_string(), "rename the parameter")),
        }
    }
    (declared, read)
}

/// What a declaration alone can tell: each parameter that the operation names exists, and each that exists is used.
fn check_uses(
    operation: &Operation,
    declared: &[ParamName],
    params: &[Param],
    place: &Place,
    problems: &mut Vec<Problem>,
) {
    let Some(uses) = operation.declared_uses() else { return };
    for name in uses.iter().filter(|name| !declared.contains(name)) {
        let instead = format!("declare `{name} = {{ type = … }}` under `params`");
        let what = format!("parameter `{name}` is used but not declared");
        problems.push(Problem::error(place.clone(), what, instead));
    }
    for param in params.iter().filter(|param| !uses.contains(&param.name())) {
        let what = format!("parameter `{}` is declared but not used", param.name());
        problems.push(Problem::error(param.place().clone(), what, "use it or delete it"));
    }
}

fn check_get(operation: &Operation, effect: Effect, place: &Place, problems: &mut Vec<Problem>) {
    let Operation::Http(request) = operation else { return };
    if effect == Effect::Read && request.method != crate::Method::Get {
        let what =
            format!("a tool that reads uses `{}`, which may change something", request.method.as_str());
        problems.push(Problem::warn(place.clone(), what, "say `effect = \"write\"`, or use `GET`"));
    }
    if request.method == crate::Method::Get && !request.body.is_empty() {
        problems.push(Problem::error(place.clone(), "a `GET` has a body", "move its parameters to `query`"));
    }
}
