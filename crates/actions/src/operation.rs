//! What a tool does, in the terms of its system.

use std::collections::BTreeMap;

use ringfence_core::{ParamName, Place, Problem};

use crate::file::{File, Table, list};
use crate::tool::SystemKind;

/// What a tool does.
#[derive(Clone, Debug)]
pub enum Operation {
    /// One SQL statement; each `:name` in it is a parameter, bound as a value.
    Sql {
        /// The statement as the author wrote it.
        statement: String,
        /// Where it stands.
        place: Place,
    },
    /// One HTTP request to the system's origin.
    Http(HttpRequest),
    /// A program, run in the system's sandbox.
    Program {
        /// The parameter that holds its source text.
        source: ParamName,
        /// The files that it finds in `/work/in`, each with the parameter that holds its text.
        files: BTreeMap<String, ParamName>,
    },
}

/// One HTTP request, put together from values and never from text.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The path, segment by segment.
    pub path: Vec<PathSegment>,
    /// The parameters that go into the query, under their own names.
    pub query: Vec<ParamName>,
    /// The parameters that go into a JSON body, under their own names; no body where empty.
    pub body: Vec<ParamName>,
    /// The fields of the answer that pass; what is not named here does not reach the agent.
    pub returns: Vec<String>,
}

/// The methods that a tool can use (RFC 9110 §9).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `PATCH` (RFC 5789).
    Patch,
    /// `DELETE`.
    Delete,
}

impl Method {
    const NAMES: [&'static str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "GET" => Self::Get,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            _ => return None,
        })
    }

    /// The method as it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// One segment of a path: fixed, or the value of one parameter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PathSegment {
    /// As written.
    Fixed(String),
    /// The percent-encoded value of a parameter.
    Param(ParamName),
}

const KEYS: [&str; 3] = ["sql", "http", "program"];

/// Takes the one operation that fits the system's kind.
pub(crate) fn take(
    table: &mut Table<'_>,
    kind: SystemKind,
    file: File<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Operation> {
    let wanted = match kind {
        SystemKind::Sqlite | SystemKind::Postgres => "sql",
        SystemKind::Http => "http",
        SystemKind::Sandbox => "program",
    };
    for other in KEYS.into_iter().filter(|key| *key != wanted && table.has(key)) {
        let what = format!("`{other}` does not fit a system of kind `{}`", kind.as_str());
        problems.push(Problem::error(
            table.place(),
            what,
            format!("write `{wanted} = …`, or name another system"),
        ));
    }
    match kind {
        SystemKind::Sqlite | SystemKind::Postgres => {
            let statement = table.require::<String>("sql", problems)?;
            let place = file.place(&statement.span());
            Some(Operation::Sql { statement: statement.into_inner(), place })
        }
        SystemKind::Http => take_http(table, problems).map(Operation::Http),
        SystemKind::Sandbox => {
            let source = table.require::<String>("program", problems)?;
            let place = table.place_of(&source);
            let name = param_name(source.into_inner(), &place, problems)?;
            let files = program_files(table, problems);
            Some(Operation::Program { source: name, files })
        }
    }
}

/// `files = { "data.csv" = "csv" }`: plain names, each with a parameter.
fn program_files(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> BTreeMap<String, ParamName> {
    let Some(files) = table.has("files").then(|| table.table("files", problems)).flatten() else {
        return BTreeMap::new();
    };
    let place = files.place();
    let is_plain = |name: &str| {
        !name.starts_with('.')
            && name.len() <= 255
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    let named = files.values::<String>(problems).into_iter().filter_map(|(name, param)| {
        if is_plain(&name) {
            return Some((name, param_name(param, &place, problems)?));
        }
        let instead = "write a plain name: letters, digits, `.`, `-` and `_`, not beginning with a dot";
        problems.push(Problem::error(
            place.clone(),
            format!("`{}` is no name of a file", name.escape_debug()),
            instead,
        ));
        None
    });
    named.collect()
}

fn take_http(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<HttpRequest> {
    if !table.has("http") {
        let instead = "add `http = { method = \"GET\", path = \"/…/{id}\", returns = [\"id\"] }`";
        problems.push(Problem::error(table.place(), "`http` is missing", instead));
        return None;
    }
    let mut http = table.table("http", problems)?;
    let method = http.require::<String>("method", problems).and_then(|method| {
        let known = Method::named(method.get_ref());
        if known.is_none() {
            let instead = format!("write one of {}", list(&Method::NAMES));
            problems.push(Problem::error(
                http.place_of(&method),
                format!("`{}` is not a method", method.get_ref()),
                instead,
            ));
        }
        known
    });
    let path = http.require::<String>("path", problems).and_then(|path| {
        let place = http.place_of(&path);
        segments(path.get_ref(), &place, problems)
    });
    let query = param_list(&mut http, "query", problems);
    let body = param_list(&mut http, "body", problems);
    let returns = http.require::<Vec<String>>("returns", problems);
    http.finish(problems);
    Some(HttpRequest { method: method?, path: path?, query, body, returns: returns?.into_inner() })
}

fn segments(path: &str, place: &Place, problems: &mut Vec<Problem>) -> Option<Vec<PathSegment>> {
    let Some(rest) = path.strip_prefix('/') else {
        let instead = "begin it with `/`; the origin comes from the system's `base-url`";
        problems.push(Problem::error(place.clone(), format!("path `{path}` is not absolute"), instead));
        return None;
    };
    rest.split('/').map(|segment| self::segment(segment, place, problems)).collect()
}

fn segment(text: &str, place: &Place, problems: &mut Vec<Problem>) -> Option<PathSegment> {
    if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return param_name(name.to_owned(), place, problems).map(PathSegment::Param);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if !text.is_empty() && text != "." && text != ".." && text.bytes().all(plain) {
        return Some(PathSegment::Fixed(text.to_owned()));
    }
    let instead = "write letters, digits and `-._~`, or one `{parameter}` that fills the whole segment";
    problems.push(Problem::error(
        place.clone(),
        format!("path segment `{text}` is neither fixed nor a parameter"),
        instead,
    ));
    None
}

fn param_list(table: &mut Table<'_>, key: &'static str, problems: &mut Vec<Problem>) -> Vec<ParamName> {
    let Some(names) = table.take::<Vec<String>>(key, problems) else { return Vec::new() };
    let place = table.place_of(&names);
    names.into_inner().into_iter().filter_map(|name| param_name(name, &place, problems)).collect()
}

fn param_name(name: String, place: &Place, problems: &mut Vec<Problem>) -> Option<ParamName> {
    let refuse = |bad: ringfence_core::BadName| {
        problems.push(Problem::error(place.clone(), bad.to_string(), "name a parameter of this tool"));
    };
    ParamName::new(name).map_err(refuse).ok()
}

impl Operation {
    /// The parameters that it uses where the declaration alone says so; a statement's are known only to its database.
    pub(crate) fn declared_uses(&self) -> Option<Vec<&ParamName>> {
        match self {
            Self::Sql { .. } => None,
            Self::Program { source, files } => Some([source].into_iter().chain(files.values()).collect()),
            Self::Http(request) => {
                let in_path = request.path.iter().filter_map(|segment| match segment {
                    PathSegment::Param(name) => Some(name),
                    PathSegment::Fixed(_) => None,
                });
                Some(in_path.chain(&request.query).chain(&request.body).collect())
            }
        }
    }
}
