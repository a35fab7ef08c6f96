//! What a statement may touch: found by the authorizer when the tool loads, enforced by it from then on.

use std::collections::BTreeSet;

use ringfence_core::Effect;
use rusqlite::hooks::{AuthAction, AuthContext};

/// One thing that a statement touches.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Access {
    /// It selects at all.
    Select,
    /// It has a recursive part.
    Recursive,
    /// It reads a column; an empty name means the table as such, as `count(*)` does.
    Read { table: String, column: String },
    /// It calls a function.
    Function(String),
    /// It inserts into a table.
    Insert(String),
    /// It updates a column.
    Update { table: String, column: String },
    /// It deletes from a table.
    Delete(String),
}

/// All that one statement touches.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Grant(pub(crate) BTreeSet<Access>);

/// Why a statement is not narrow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Excess {
    pub(crate) what: String,
    pub(crate) instead: &'static str,
}

/// Built-in functions without an effect, a file or a view of the schema
/// (<https://www.sqlite.org/lang_corefunc.html>, `lang_aggfunc`, `lang_datefunc`, `lang_mathfunc`, `json1`, `windowfunctions`).
const FUNCTIONS: &[&str] = &[
    "abs",
    "acos",
    "asin",
    "atan",
    "atan2",
    "avg",
    "ceil",
    "ceiling",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "cos",
    "count",
    "cume_dist",
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "degrees",
    "dense_rank",
    "exp",
    "first_value",
    "floor",
    "format",
    "glob",
    "group_concat",
    "hex",
    "ifnull",
    "iif",
    "instr",
    "json",
    "json_array",
    "json_array_length",
    "json_extract",
    "json_group_array",
    "json_group_object",
    "json_object",
    "json_quote",
    "json_type",
    "json_valid",
    "julianday",
    "lag",
    "last_value",
    "lead",
    "length",
    "like",
    "likelihood",
    "likely",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "max",
    "min",
    "mod",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "percent_rank",
    "pi",
    "pow",
    "power",
    "printf",
    "quote",
    "radians",
    "random",
    "rank",
    "replace",
    "round",
    "row_number",
    "rtrim",
    "sign",
    "sin",
    "sqrt",
    "strftime",
    "string_agg",
    "substr",
    "substring",
    "subtype",
    "sum",
    "tan",
    "time",
    "timediff",
    "total",
    "trim",
    "trunc",
    "typeof",
    "unhex",
    "unicode",
    "unixepoch",
    "unlikely",
    "upper",
    "->",
    "->>",
];

/// What a statement of a tool with this effect may touch at the most.
pub(crate) fn judge(context: &AuthContext<'_>, effect: Effect) -> Result<Access, Excess> {
    let writes = |access: Access, table: &str, verb: &str| {
        if effect == Effect::Read {
            return excess(
                format!("a tool that reads {verb} `{table}`"),
                "say `effect = \"write\"` or `\"irreversible\"`",
            );
        }
        is_hidden(table).map_or(Ok(access), Err)
    };
    match context.action {
        AuthAction::Select => Ok(Access::Select),
        AuthAction::Recursive => Ok(Access::Recursive),
        AuthAction::Read { table_name, column_name } => {
            let access = Access::Read { table: table_name.to_owned(), column: column_name.to_owned() };
            is_hidden(table_name).map_or(Ok(access), Err)
        }
        AuthAction::Function { function_name } => judge_function(function_name),
        AuthAction::Insert { table_name } => {
            writes(Access::Insert(table_name.to_owned()), table_name, "inserts into")
        }
        AuthAction::Update { table_name, column_name } => {
            let access = Access::Update { table: table_name.to_owned(), column: column_name.to_owned() };
            writes(access, table_name, "updates")
        }
        AuthAction::Delete { table_name } => {
            writes(Access::Delete(table_name.to_owned()), table_name, "deletes from")
        }
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => excess(
            "the statement attaches or detaches a database".into(),
            "declare a system for each database",
        ),
        AuthAction::Pragma { pragma_name, .. } => excess(
            format!("the statement uses PRAGMA `{pragma_name}`"),
            "write a SELECT, INSERT, UPDATE or DELETE",
        ),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => excess(
            "the statement controls transactions".into(),
            "leave that to the gateway: each call is one transaction",
        ),
        _ => excess("the statement changes the schema".into(), "write a SELECT, INSERT, UPDATE or DELETE"),
    }
}

fn excess<T>(what: String, instead: &'static str) -> Result<T, Excess> {
    Err(Excess { what, instead })
}

fn judge_function(name: &str) -> Result<Access, Excess> {
    let name = name.to_ascii_lowercase();
    if FUNCTIONS.contains(&name.as_str()) {
        return Ok(Access::Function(name));
    }
    excess(
        format!("the statement calls `{name}()`"),
        "use functions that only compute; this one is not on the list of those",
    )
}

/// SQLite's own tables, and pragmas that are spelled as tables.
fn is_hidden(table: &str) -> Option<Excess> {
    let table = table.to_ascii_lowercase();
    let hidden = table.starts_with("sqlite_") || table.starts_with("pragma_") || table == "dbstat";
    hidden.then(|| Excess {
        what: format!("the statement touches `{table}`, which shows the database itself"),
        instead: "name your own tables",
    })
}
