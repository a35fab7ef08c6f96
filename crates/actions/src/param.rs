//! A parameter: its type with every constraint, and where its value comes from.

use regex::Regex;
use ringfence_core::{Decimal, ParamName, Place, Problem};

use crate::Format;
use crate::file::{Table, list};

/// The longest string that may go without a declared `max-length`, in characters.
const LENGTH_MAX_DEFAULT: u64 = 1_000;
/// The longest string that can be declared, in characters.
const LENGTH_MAX_CEILING: u64 = 262_144;
/// The most items that a list may have without a declared `max-items`.
const ITEMS_MAX_DEFAULT: u64 = 100;
/// The most items that can be declared.
const ITEMS_MAX_CEILING: u64 = 10_000;

/// Where the value of a parameter comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// From the agent.
    Agent,
    /// From the verified principal; the model neither sees nor sets it.
    Principal(Binding),
}

/// What of the principal a parameter is bound to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Binding {
    /// `principal.subject`: the `sub` claim.
    Subject,
    /// `principal.issuer`: the `iss` claim.
    Issuer,
    /// `principal.claims.NAME`.
    Claim(String),
}

impl Binding {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("principal.")? {
            "subject" => Some(Self::Subject),
            "issuer" => Some(Self::Issuer),
            rest => rest
                .strip_prefix("claims.")
                .filter(|claim| !claim.is_empty())
                .map(|claim| Self::Claim(claim.into())),
        }
    }
}

/// A type that stands alone.
#[derive(Clone, Debug)]
pub enum Scalar {
    /// Text of a bounded length.
    String {
        /// The whole text has to match; shown to the model anchored.
        pattern: Option<Regex>,
        /// The declared format.
        format: Option<Format>,
        /// If not empty, the text is one of these.
        one_of: Vec<String>,
        /// The shortest text, in characters.
        length_min: u64,
        /// The longest text, in characters.
        length_max: u64,
    },
    /// A whole number of 64 bits, both bounds included.
    Integer {
        /// The smallest.
        minimum: i64,
        /// The largest.
        maximum: i64,
    },
    /// A decimal number with at most four digits after the point, both bounds included.
    Number {
        /// The smallest, where there is one.
        minimum: Option<Decimal>,
        /// The largest, where there is one.
        maximum: Option<Decimal>,
    },
    /// `true` or `false`.
    Boolean,
}

/// The type of a parameter.
#[derive(Clone, Debug)]
pub enum ParamType {
    /// One value.
    Scalar(Scalar),
    /// A bounded list of scalars.
    Array {
        /// What each item is.
        items: Scalar,
        /// The fewest items.
        items_min: u64,
        /// The most items.
        items_max: u64,
    },
}

/// One parameter of a tool.
#[derive(Clone, Debug)]
pub struct Param {
    name: ParamName,
    kind: ParamType,
    source: Source,
    optional: bool,
    describe: Option<String>,
    place: Place,
}

impl Param {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ParamName {
        &self.name
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> &ParamType {
        &self.kind
    }

    /// Where its value comes from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether the agent may leave it out; then no value is bound (SQL `NULL`).
    #[must_use]
    pub fn optional(&self) -> bool {
        self.optional
    }

    /// What the model reads about it.
    #[must_use]
    pub fn describe(&self) -> Option<&str> {
        self.describe.as_deref()
    }

    /// Where it is declared.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Reads `[TOOL.params] NAME = { … }`.
    pub(crate) fn take(name: ParamName, mut table: Table<'_>, problems: &mut Vec<Problem>) -> Option<Self> {
        let place = table.place();
        let source = take_source(&mut table, problems);
        let bound = matches!(source, Some(Source::Principal(_)));
        let kind = take_type(&mut table, bound, problems)?;
        let optional = table.take::<bool>("optional", problems);
        if let (true, Some(optional)) = (bound, &optional) {
            let what = "a parameter that is bound to the principal cannot be optional";
            problems.push(Problem::error(
                table.place_of(optional),
                what,
                "leave `optional` out: a missing claim refuses the call",
            ));
        }
        let describe = table.take::<String>("describe", problems).map(toml::Spanned::into_inner);
        table.finish(problems);
        let optional = optional.is_some_and(toml::Spanned::into_inner);
        Some(Self { name, kind, source: source?, optional, describe, place })
    }
}

fn take_source(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Source> {
    let Some(from) = table.take::<String>("from", problems) else { return Some(Source::Agent) };
    let binding = Binding::parse(from.get_ref()).map(Source::Principal);
    if binding.is_none() {
        let instead = "write `principal.subject`, `principal.issuer` or `principal.claims.NAME`";
        let what = format!("`{}` is nothing that a parameter can come from", from.get_ref());
        problems.push(Problem::error(table.place_of(&from), what, instead));
    }
    binding
}

fn take_type(table: &mut Table<'_>, bound: bool, problems: &mut Vec<Problem>) -> Option<ParamType> {
    let word = if bound && !table.has("type") {
        "string".to_owned()
    } else {
        let word = table.require::<String>("type", problems)?;
        if word.get_ref() == "array" {
            return take_array(table, problems);
        }
        if !SCALARS.contains(&word.get_ref().as_str()) {
            let what = format!("`{}` is not a type", word.get_ref());
            let instead = format!("write one of {}, `array`", list(&SCALARS));
            problems.push(Problem::error(table.place_of(&word), what, instead));
            return None;
        }
        word.into_inner()
    };
    take_scalar(&word, table, problems).map(ParamType::Scalar)
}

const SCALARS: [&str; 4] = ["string", "integer", "number", "boolean"];

fn take_scalar(word: &str, table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Scalar> {
    match word {
        "string" => take_string(table, problems),
        "integer" => {
            let minimum = table.take("minimum", problems).map_or(i64::MIN, toml::Spanned::into_inner);
            let maximum = table.take("maximum", problems).map_or(i64::MAX, toml::Spanned::into_inner);
            ordered(&minimum, &maximum, table, problems)?;
            Some(Scalar::Integer { minimum, maximum })
        }
        "number" => {
            let minimum = table.take("minimum", problems).map(toml::Spanned::into_inner);
            let maximum = table.take("maximum", problems).map(toml::Spanned::into_inner);
            if let (Some(minimum), Some(maximum)) = (&minimum, &maximum) {
                ordered::<Decimal>(minimum, maximum, table, problems)?;
            }
            Some(Scalar::Number { minimum, maximum })
        }
        _ => Some(Scalar::Boolean),
    }
}

fn ordered<T: Ord>(low: &T, high: &T, table: &Table<'_>, problems: &mut Vec<Problem>) -> Option<()> {
    if low <= high {
        return Some(());
    }
    problems.push(Problem::error(
        table.place(),
        "the lower bound is above the upper bound",
        "swap or widen them: as it stands no value fits",
    ));
    None
}

fn take_string(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Scalar> {
    let format = take_format(table, problems);
    let pattern = take_pattern(table, problems);
    let one_of = table.take::<Vec<String>>("enum", problems);
    if let Some(empty) = one_of.as_ref().filter(|values| values.get_ref().is_empty()) {
        problems.push(Problem::error(
            table.place_of(empty),
            "`enum` is empty",
            "name at least one value: as it stands no value fits",
        ));
    }
    let one_of = one_of.map(toml::Spanned::into_inner).unwrap_or_default();
    let natural = format
        .map(Format::length_max)
        .or_else(|| one_of.iter().map(|value| value.chars().count() as u64).max());
    let length_min = table.take("min-length", problems).map_or(0, toml::Spanned::into_inner);
    let declared = table.take::<u64>("max-length", problems);
    if let Some(long) = declared.as_ref().filter(|length| *length.get_ref() > LENGTH_MAX_CEILING) {
        let instead = format!("write at most {LENGTH_MAX_CEILING}");
        problems.push(Problem::error(table.place_of(long), "`max-length` is too large", instead));
    }
    let length_max = declared.map(toml::Spanned::into_inner).or(natural).unwrap_or(LENGTH_MAX_DEFAULT);
    ordered(&length_min, &length_max, table, problems)?;
    Some(Scalar::String { pattern, format, one_of, length_min, length_max })
}

fn take_format(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Format> {
    let name = table.take::<String>("format", problems)?;
    let format = Format::named(name.get_ref());
    if format.is_none() {
        let what = format!("`{}` is not a format", name.get_ref());
        problems.push(Problem::error(
            table.place_of(&name),
            what,
            format!("write one of {}", list(&Format::NAMES)),
        ));
    }
    format
}

fn take_pattern(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Regex> {
    let text = table.take::<String>("pattern", problems)?;
    let place = table.place_of(&text);
    if let Some(word) = unclear(text.get_ref()) {
        problems.push(Problem::error(
            place,
            format!("`{word}` in a pattern means different things to different readers"),
            "write the characters out, such as `[0-9]` for a digit and `[A-Za-z0-9_]` for a letter of a word",
        ));
        return None;
    }
    let refuse = |error: regex::Error| {
        let reason = error.to_string().lines().last().unwrap_or_default().replace("error: ", "");
        problems.push(Problem::error(
            place,
            format!("pattern `{}` cannot be read: {reason}", text.get_ref()),
            "write a regular expression without look-around or back-references; it is anchored at both ends",
        ));
    };
    anchored(text.get_ref()).map_err(refuse).ok()
}

/// What the model's JSON Schema (ECMA-262) and the check here would read differently: classes whose reach depends on
/// Unicode, flags, code points in braces, and what only one of the two takes for set operations.
fn unclear(pattern: &str) -> Option<String> {
    let mut rest = pattern.chars();
    // Within `[…]`, whether it has a member yet.
    let mut class: Option<bool> = None;
    while let Some(char) = rest.next() {
        let ahead = rest.as_str();
        let next = ahead.chars().next();
        let shown = |length| Some(std::iter::once(char).chain(ahead.chars()).take(length).collect());
        match (char, next, class) {
            ('\\', Some('x' | 'u'), _) if ahead.chars().nth(1) == Some('{') => return shown(3),
            ('\\', Some(escaped), _)
                if escaped.is_alphanumeric()
                    && !matches!(escaped, 'n' | 'r' | 't' | 'f' | 'v' | 'x' | 'u') =>
            {
                return shown(2);
            }
            ('\\', Some(_), _) => {
                rest.next();
                class = class.map(|_| true);
            }
            ('[', _, Some(_)) | (']', _, Some(false)) => return shown(1),
            ('&' | '~' | '-', Some(same), Some(_)) if same == char => return shown(2),
            (']', _, Some(true)) => class = None,
            (_, _, Some(_)) => class = Some(true),
            ('[', next, None) => {
                class = Some(false);
                if next == Some('^') {
                    rest.next();
                }
            }
            ('(', Some('?'), None) if !ahead.starts_with("?:") => return shown(2),
            ('{', Some(','), None) => return shown(2),
            _ => {}
        }
    }
    None
}

/// `^(?:PATTERN)$` over whole texts: `$` here never matches before a final line break.
fn anchored(pattern: &str) -> Result<Regex, regex::Error> {
    // Compiled alone first, so that a pattern such as `a)|(b` cannot close the group that anchors it.
    Regex::new(pattern)?;
    regex::RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(1 << 20).build()
}

fn take_array(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<ParamType> {
    let items_min = table.take("min-items", problems).map_or(0, toml::Spanned::into_inner);
    let declared = table.take::<u64>("max-items", problems);
    if let Some(many) = declared.as_ref().filter(|items| *items.get_ref() > ITEMS_MAX_CEILING) {
        let instead = format!("write at most {ITEMS_MAX_CEILING}");
        problems.push(Problem::error(table.place_of(many), "`max-items` is too large", instead));
    }
    let items_max = declared.map_or(ITEMS_MAX_DEFAULT, toml::Spanned::into_inner);
    ordered(&items_min, &items_max, table, problems)?;
    if !table.has("items") {
        problems.push(Problem::error(
            table.place(),
            "`items` is missing",
            "add `items = { type = \"string\", … }`",
        ));
        return None;
    }
    let mut items = table.table("items", problems)?;
    let word = items.require::<String>("type", problems)?;
    if !SCALARS.contains(&word.get_ref().as_str()) {
        let what = format!("a list of `{}` is not offered", word.get_ref());
        problems.push(Problem::error(
            items.place_of(&word),
            what,
            format!("write one of {}", list(&SCALARS)),
        ));
        return None;
    }
    let scalar = take_scalar(word.get_ref(), &mut items, problems);
    items.finish(problems);
    Some(ParamType::Array { items: scalar?, items_min, items_max })
}
