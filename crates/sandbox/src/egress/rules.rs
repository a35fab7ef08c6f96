//! Where a sandbox may go: checked once, then asked about each connection and each request. No rule means no.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::credential::Credential;
use super::decision::Reason;
use super::declared::{Declared, DeclaredRule, Entry, Limits};
use super::host::Host;
use super::path::Path;
use super::search::Needles;
use super::secret::Secret;
use super::target::{Pattern, Scheme, Target, split_port};

/// The checked rules of one sandbox. Printing them prints no secret.
#[derive(Debug)]
pub struct Rules {
    allow: Vec<Rule>,
    deny: Vec<Deny>,
    pub(crate) private: Vec<IpNet>,
    pub(crate) limits: Limits,
    pub(crate) secrets: Arc<Needles>,
    pub(crate) placeholders: Arc<Needles>,
}

/// One place to go.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) text: String,
    pub(crate) hello: HelloTerms,
    pub(crate) credential: Option<Credential>,
    target: Target,
    inspect: bool,
    methods: Vec<String>,
    paths: Vec<Path>,
}

/// What a rule forgives at the start of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HelloTerms {
    pub(crate) allow_missing_sni: bool,
    pub(crate) allow_ech: bool,
    pub(crate) allow_any_protocol: bool,
}

#[derive(Debug)]
struct Deny {
    text: String,
    pattern: Pattern,
    port: Option<u16>,
}

/// How an allowed connection goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'r> {
    /// Unread.
    Tunnel(&'r Rule),
    /// Each request is judged.
    Inspect(&'r Rule),
}

/// A no, with the rule that said it.
#[derive(Debug)]
pub(crate) struct No {
    pub(crate) reason: Reason,
    pub(crate) rule: Option<String>,
}

impl From<Reason> for No {
    fn from(reason: Reason) -> Self {
        Self { reason, rule: None }
    }
}

/// All that is wrong with declared rules, a sentence each.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Problems(pub Vec<String>);

impl Rules {
    /// Checks what was declared. `secrets` are the values of the credentials, by the name that the declaration gives them.
    pub fn check(declared: &Declared, secrets: &BTreeMap<String, Secret>) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let allow: Vec<Rule> =
            keep(declared.allow.iter().map(|entry| Rule::check(entry, secrets)), &mut problems);
        let deny = keep(declared.deny.iter().map(|text| Deny::parse(text)), &mut problems);
        let private = keep(declared.private.iter().map(|text| block(text)), &mut problems);
        let credentials = || allow.iter().filter_map(|rule| rule.credential.as_ref());
        for credential in credentials() {
            if credentials().any(|other| other.secret.reveal().contains(&credential.placeholder)) {
                problems.push(format!("the placeholder of `{}` is part of a secret", credential.name));
            }
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let needles = Needles::of(credentials().map(|credential| credential.secret.reveal()));
        let placeholders = Needles::of(credentials().map(|credential| credential.placeholder.as_str()));
        let (secrets, placeholders) = (Arc::new(needles), Arc::new(placeholders));
        Ok(Self { allow, deny, private, limits: declared.limits, secrets, placeholders })
    }

    /// Rules without conditions: `api.example.com`, `api.example.com:8443`, `http://host`.
    pub fn parse(entries: &[&str]) -> Result<Self, Problems> {
        let allow = entries.iter().map(|text| Entry::Text((*text).to_owned())).collect();
        Self::check(&Declared { allow, ..Declared::default() }, &BTreeMap::new())
    }

    /// Where it may go, as the operator wrote it: for receipts.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.allow.iter().map(|rule| rule.text.clone()).collect()
    }

    /// Whether any rule needs the sandbox's own authority to be trusted inside.
    #[must_use]
    pub fn inspects(&self) -> bool {
        self.allow.iter().any(|rule| rule.inspect)
    }

    /// Judges where a connection wants to go.
    pub(crate) fn way(&self, scheme: Scheme, host: &Host, port: u16) -> Result<Way<'_>, No> {
        if self.placeholders.are_in(host.to_string().as_bytes()) {
            return Err(Reason::Placeholder.into());
        }
        if let Some(deny) = self.deny.iter().find(|deny| deny.matches(host, port)) {
            return Err(No { reason: Reason::DenyRule, rule: Some(deny.text.clone()) });
        }
        let matching = || self.allow.iter().filter(|rule| rule.target.matches(scheme, host, port));
        let first = matching().next().ok_or(Reason::NoRule)?;
        if scheme == Scheme::Plain {
            let has_credential = |rule: &Rule| rule.credential.is_some() && rule.target.pattern.matches(host);
            return match self.allow.iter().find(|rule| has_credential(rule)) {
                Some(rule) => {
                    Err(No { reason: Reason::PlainToCredentialHost, rule: Some(rule.text.clone()) })
                }
                None => Ok(Way::Inspect(first)),
            };
        }
        // Where one rule tunnels and another inspects, the stronger holds.
        Ok(matching().find(|rule| rule.inspect).map_or(Way::Tunnel(first), Way::Inspect))
    }

    /// Judges a request on a connection that [`Rules::way`] has judged: the first rule that allows it.
    pub(crate) fn request(
        &self,
        scheme: Scheme,
        host: &Host,
        port: u16,
        method: &str,
        path: &Path,
    ) -> Result<&Rule, No> {
        self.way(scheme, host, port)?;
        let is_read = |rule: &&Rule| rule.inspect || scheme == Scheme::Plain;
        let mut matching =
            self.allow.iter().filter(|rule| rule.target.matches(scheme, host, port)).filter(is_read);
        matching.find(|rule| rule.allows(method, path)).ok_or(Reason::NoRuleForRequest.into())
    }
}

impl Rule {
    fn check(entry: &Entry, secrets: &BTreeMap<String, Secret>) -> Result<Self, String> {
        match entry {
            Entry::Text(text) => {
                Self::of_declared(&DeclaredRule { to: text.clone(), ..DeclaredRule::default() }, secrets)
            }
            Entry::Rule(rule) => Self::of_declared(rule, secrets),
        }
    }

    fn of_declared(declared: &DeclaredRule, secrets: &BTreeMap<String, Secret>) -> Result<Self, String> {
        let text = declared.to.clone();
        let at = |problem: &str| format!("`{}`: {problem}", text.escape_debug());
        let target = Target::parse(&text)?;
        let is_exact = matches!(target.pattern, Pattern::Exact(_));
        let is_plain = target.scheme == Scheme::Plain;
        if !is_exact && !declared.inspect && !is_plain {
            return Err(at(
                "a wildcard needs `inspect = true`, since a tunnel shows no more than a server name",
            ));
        }
        let has_conditions = !declared.methods.is_empty() || !declared.paths.is_empty();
        if has_conditions && !declared.inspect && !is_plain {
            return Err(at("`methods` and `paths` need `inspect = true`"));
        }
        if declared.inspect && declared.allow_any_protocol {
            return Err(at("`allow_any_protocol` cannot be inspected"));
        }
        let mut methods = declared.methods.clone();
        if methods
            .iter()
            .any(|method| method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()))
        {
            return Err(at("a method is written in capitals, such as `GET`"));
        }
        let paths =
            declared.paths.iter().map(|path| Path::parse(path.as_bytes())).collect::<Result<Vec<_>, _>>();
        let paths = paths.map_err(|error| at(&error.to_string()))?;
        let credential = match &declared.credential {
            None => None,
            Some(_) if !is_exact || !declared.inspect || is_plain || paths.is_empty() => {
                return Err(at("a credential needs one exact host over TLS, `inspect = true` and `paths`"));
            }
            Some(credential) => Some(Credential::check(credential, secrets).map_err(|error| at(&error))?),
        };
        if credential.is_some() && methods.is_empty() {
            methods.push("GET".to_owned());
        }
        let hello = HelloTerms {
            allow_missing_sni: declared.allow_missing_sni,
            allow_ech: declared.allow_ech,
            allow_any_protocol: declared.allow_any_protocol,
        };
        Ok(Self { text, hello, credential, target, inspect: declared.inspect, methods, paths })
    }

    fn allows(&self, method: &str, path: &Path) -> bool {
        let is_method = self.methods.is_empty() || self.methods.iter().any(|allowed| allowed == method);
        is_method && (self.paths.is_empty() || self.paths.iter().any(|allowed| allowed.covers(path)))
    }
}

impl Deny {
    fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = split_port(text)?;
        Ok(Self { text: text.to_owned(), pattern: Pattern::parse(host)?, port })
    }

    fn matches(&self, host: &Host, port: u16) -> bool {
        self.pattern.matches(host) && self.port.is_none_or(|denied| denied == port)
    }
}

fn block(text: &str) -> Result<IpNet, String> {
    let address = || text.parse().map(|address: std::net::IpAddr| IpNet::from(address));
    text.parse::<IpNet>()
        .or_else(|_| address())
        .map_err(|_| format!("`{}` is no address; write `10.1.2.3` or `10.1.0.0/16`", text.escape_debug()))
}

fn keep<T>(checked: impl Iterator<Item = Result<T, String>>, problems: &mut Vec<String>) -> Vec<T> {
    checked.filter_map(|one| one.map_err(|problem| problems.push(problem)).ok()).collect()
}
