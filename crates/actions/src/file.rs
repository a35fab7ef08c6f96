//! Reads a TOML file by hand-over: each key is taken once with its place, every problem is kept, what nobody took is unknown.
//!
//! `serde` stops at the first problem of a file; a person who writes fifty tools wants all of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use ringfence_core::{Decimal, Place, Problem};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::nearest;

/// One project file: its name relative to the project, and its text.
#[derive(Clone, Copy)]
pub struct File<'a> {
    /// The name that problems show.
    pub name: &'a str,
    /// The whole text.
    pub text: &'a str,
}

impl<'a> File<'a> {
    /// The place of a span.
    #[must_use]
    pub fn place(&self, span: &Range<usize>) -> Place {
        Place::of(self.name, self.text, span.start)
    }

    /// Parses the file. Where its syntax is wrong, each error becomes a problem and nothing is handed over, since what
    /// could be guessed of the rest would only add noise.
    pub fn parse(self, problems: &mut Vec<Problem>) -> Option<Table<'a>> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        let readable = errors.is_empty();
        for error in errors {
            let place = self.place(&error.span().unwrap_or(0..0));
            let what = format!("this is not TOML: {}", error.message().replace('\n', ", "));
            problems.push(Problem::error(place, what, "see https://toml.io for the syntax"));
        }
        readable.then(|| Table::new(self, String::new(), root.span(), root.into_inner()))
    }
}

/// A value that a key can have.
pub trait Readable: Sized {
    /// What to write, for a value of another type.
    const EXPECTED: &'static str;
    /// The value; `None` where it has another type.
    fn read(value: &DeValue<'_>) -> Option<Self>;
}

impl Readable for String {
    const EXPECTED: &'static str = "a string in quotes";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl Readable for bool {
    const EXPECTED: &'static str = "true or false";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        value.as_bool()
    }
}

impl Readable for i64 {
    const EXPECTED: &'static str = "a whole number";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        let integer = value.as_integer()?;
        Self::from_str_radix(integer.as_str(), integer.radix()).ok()
    }
}

impl Readable for u64 {
    const EXPECTED: &'static str = "a whole number that is not negative";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        i64::read(value).and_then(|number| Self::try_from(number).ok())
    }
}

impl Readable for Decimal {
    const EXPECTED: &'static str = "a number with at most four digits after the point";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = value.as_float().map(toml::de::DeFloat::as_str);
        Self::parse(text.or_else(|| value.as_integer().map(toml::de::DeInteger::as_str))?)
    }
}

impl<T: Readable> Readable for Vec<T> {
    const EXPECTED: &'static str = "a list in brackets";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        value.as_array()?.iter().map(|item| T::read(item.get_ref())).collect()
    }
}

/// An amount of memory or disk: `"512MiB"`, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bytes(pub u64);

impl Readable for Bytes {
    const EXPECTED: &'static str = "a size such as \"512MiB\" (units KiB, MiB, GiB)";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = value.as_str()?;
        let split = text.find(|byte: char| !byte.is_ascii_digit())?;
        let (number, unit) = text.split_at_checked(split)?;
        let scale: u64 = match unit.trim() {
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(scale).map(Self)
    }
}

struct Entry<'a> {
    key: Range<usize>,
    value: Spanned<DeValue<'a>>,
}

/// A table whose keys are taken one by one.
pub struct Table<'a> {
    file: File<'a>,
    path: String,
    span: Range<usize>,
    entries: BTreeMap<String, Entry<'a>>,
    asked: Vec<&'static str>,
}

impl<'a> Table<'a> {
    fn new(file: File<'a>, path: String, span: Range<usize>, table: DeTable<'a>) -> Self {
        let entries = table.into_iter().map(|(key, value)| {
            let span = key.span();
            (Cow::into_owned(key.into_inner()), Entry { key: span, value })
        });
        Self { file, path, span, entries: entries.collect(), asked: Vec::new() }
    }

    /// Where the table begins.
    #[must_use]
    pub fn place(&self) -> Place {
        self.file.place(&self.span)
    }

    /// The place of a span within this table's file.
    #[must_use]
    pub fn place_of<T>(&self, value: &Spanned<T>) -> Place {
        self.file.place(&value.span())
    }

    /// Whether the key is there and not yet taken.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    fn remove(&mut self, key: &'static str) -> Option<Entry<'a>> {
        self.asked.push(key);
        self.entries.remove(key)
    }

    /// Takes an optional value; a value of the wrong type is a problem and reads as absent.
    pub fn take<T: Readable>(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Problem>,
    ) -> Option<Spanned<T>> {
        let entry = self.remove(key)?;
        let span = entry.value.span();
        if let Some(value) = T::read(entry.value.get_ref()) {
            return Some(Spanned::new(span, value));
        }
        let what = format!("`{key}` is {}", article(entry.value.get_ref().type_str()));
        problems.push(Problem::error(self.file.place(&span), what, format!("write {}", T::EXPECTED)));
        None
    }

    /// Takes an optional number from this range; one outside is a problem and reads as absent.
    pub fn number(
        &mut self,
        key: &'static str,
        within: RangeInclusive<u64>,
        problems: &mut Vec<Problem>,
    ) -> Option<u64> {
        let value = self.take::<u64>(key, problems)?;
        if within.contains(value.get_ref()) {
            return Some(value.into_inner());
        }
        let instead = format!("write a number from {} to {}", within.start(), within.end());
        problems.push(Problem::error(self.place_of(&value), format!("`{key}` is out of range"), instead));
        None
    }

    /// Takes an optional size within these bytes; one outside is a problem and reads as absent.
    pub fn size(
        &mut self,
        key: &'static str,
        bytes: RangeInclusive<u64>,
        problems: &mut Vec<Problem>,
    ) -> Option<u64> {
        let value = self.take::<Bytes>(key, problems)?;
        if bytes.contains(&value.get_ref().0) {
            return Some(value.into_inner().0);
        }
        let (least, most) = (bytes.start() >> 10, bytes.end() >> 20);
        let instead = format!("write a size from `{least}KiB` to `{most}MiB`");
        problems.push(Problem::error(self.place_of(&value), format!("`{key}` is out of range"), instead));
        None
    }

    /// Takes a value that has to be there.
    pub fn require<T: Readable>(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Problem>,
    ) -> Option<Spanned<T>> {
        if !self.has(key) {
            self.asked.push(key);
            let what = format!("`{key}` is missing{}", self.within());
            problems.push(Problem::error(self.place(), what, format!("add `{key} = …`, {}", T::EXPECTED)));
            return None;
        }
        self.take(key, problems)
    }

    /// Takes a sub-table.
    pub fn table(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<Self> {
        let entry = self.remove(key)?;
        self.as_table(key, entry, problems)
    }

    /// Takes a list of tables: `[[KEY]]`.
    pub fn list_of_tables(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Vec<Self> {
        let Some(entry) = self.remove(key) else { return Vec::new() };
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        let DeValue::Array(items) = entry.value.into_inner() else {
            let what = format!("`{path}` is not a list of tables");
            problems.push(Problem::error(self.file.place(&entry.key), what, format!("write `[[{path}]]`")));
            return Vec::new();
        };
        let tables = items.into_iter().filter_map(|item| {
            let entry = Entry { key: item.span(), value: item };
            self.as_table(key, entry, problems)
        });
        tables.collect()
    }

    /// Takes all that is left as named tables: `[NAME]`.
    pub fn tables(&mut self, problems: &mut Vec<Problem>) -> Vec<(Spanned<String>, Self)> {
        let entries = std::mem::take(&mut self.entries);
        let tables = entries.into_iter().filter_map(|(name, entry)| {
            let key = entry.key.clone();
            self.as_table(&name, entry, problems).map(|table| (Spanned::new(key, name), table))
        });
        tables.collect()
    }

    /// Takes a list of tables: `[[NAME]]`.
    pub fn list(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Vec<Self> {
        let Some(entry) = self.remove(key) else { return Vec::new() };
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        let tables = match entry.value.into_inner() {
            DeValue::Array(items) => items.into_iter().map(|item| {
                let span = item.span();
                match item.into_inner() {
                    DeValue::Table(table) => Some(Self::new(self.file, path.clone(), span, table)),
                    _ => None,
                }
            }),
            _ => return self.no_list(&path, &entry.key, problems),
        };
        match tables.collect() {
            Some(tables) => tables,
            None => self.no_list(&path, &entry.key, problems),
        }
    }

    fn no_list(&self, path: &str, span: &Range<usize>, problems: &mut Vec<Problem>) -> Vec<Self> {
        let what = format!("`{path}` is no list of tables");
        problems.push(Problem::error(self.file.place(span), what, format!("write `[[{path}]]` above each")));
        Vec::new()
    }

    /// Takes all that is left as values of one type: `NAME = …`.
    pub fn values<T: Readable>(mut self, problems: &mut Vec<Problem>) -> BTreeMap<String, T> {
        let entries = std::mem::take(&mut self.entries);
        let mut read = BTreeMap::new();
        for (name, entry) in entries {
            let span = entry.value.span();
            if let Some(value) = T::read(entry.value.get_ref()) {
                read.insert(name, value);
                continue;
            }
            let what = format!("`{name}` is {}", article(entry.value.get_ref().type_str()));
            problems.push(Problem::error(self.file.place(&span), what, format!("write {}", T::EXPECTED)));
        }
        read
    }

    fn as_table(&self, name: &str, entry: Entry<'a>, problems: &mut Vec<Problem>) -> Option<Self> {
        let span = entry.key;
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        match entry.value.into_inner() {
            DeValue::Table(table) => Some(Self::new(self.file, path, span, table)),
            other => {
                let what = format!("`{path}` is {}", article(other.type_str()));
                problems.push(Problem::error(
                    self.file.place(&span),
                    what,
                    format!("write a table, `[{path}]`"),
                ));
                None
            }
        }
    }

    fn within(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!(" in `[{}]`", self.path) }
    }

    /// Ends the table: each key that nobody asked for is a problem.
    pub fn finish(self, problems: &mut Vec<Problem>) {
        let within = self.within();
        for (key, entry) in &self.entries {
            let what = format!("`{key}` is not a key{within}");
            let instead = match nearest::of(key, self.asked.iter().copied(), 1).first() {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write one of {}", list(&self.asked)),
            };
            problems.push(Problem::error(self.file.place(&entry.key), what, instead));
        }
    }
}

/// `a`, `b`, `c`.
pub(crate) fn list<T: AsRef<str>>(words: &[T]) -> String {
    words.iter().map(|word| format!("`{}`", word.as_ref())).collect::<Vec<_>>().join(", ")
}

fn article(type_name: &str) -> String {
    let an = type_name.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {type_name}", if an { "an" } else { "a" })
}
