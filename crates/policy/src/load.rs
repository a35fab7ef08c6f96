//! Policy files become one small policy set for each tool, validated against the schema of the action-space.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr as _;

use cedar_policy::{
    ActionConstraint, Authorizer, Effect, Entity, EntityId, EntityTypeName, EntityUid, Policy, PolicyId,
    PolicySet, Schema, ValidationMode, Validator,
};
use miette::Diagnostic;
use ringfence_actions::{ActionSpace, Tool};
use ringfence_core::{Decider, GroupName, Place, Problem, Rule, ToolName};

use crate::schema;
use crate::statements::{self, Statement};

/// One policy file: its name within `policies/`, and its text.
#[derive(Clone, Copy)]
pub struct PolicyFile<'a> {
    /// The name that rules carry: `metrics.cedar`.
    pub name: &'a str,
    /// The whole text.
    pub text: &'a str,
}

/// The policies of a project, sliced by tool: a decision reads only the policies whose scope could match its tool.
pub struct Policies {
    pub(crate) slices: HashMap<ToolName, Slice>,
    pub(crate) schema: Schema,
    pub(crate) authorizer: Authorizer,
    pub(crate) decider: Decider,
    pub(crate) types: EntityTypes,
}

/// What one tool's decisions need.
pub(crate) struct Slice {
    pub(crate) policies: PolicySet,
    pub(crate) rules: HashMap<PolicyId, LoadedRule>,
    pub(crate) action: EntityUid,
    pub(crate) resource: EntityUid,
    /// The action, its groups and the system.
    pub(crate) entities: Vec<Entity>,
}

/// Where a policy stands, and whom it asks.
#[derive(Clone)]
pub(crate) struct LoadedRule {
    pub(crate) rule: Rule,
    /// `@approve("GROUP")`, on forbids alone.
    pub(crate) approver: Option<GroupName>,
}

/// The entity types of the schema, parsed once.
pub(crate) struct EntityTypes {
    pub(crate) user: EntityTypeName,
    pub(crate) group: EntityTypeName,
}

struct Loaded {
    policy: Policy,
    place: Place,
    rule: LoadedRule,
}

impl Policies {
    /// Reads and validates the policies against the action-space. Every problem of every file is pushed.
    ///
    /// `None` where there is any error: a project whose policies are not all understood has none.
    pub fn load(
        files: &[PolicyFile<'_>],
        space: &ActionSpace,
        decider: Decider,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let before = problems.len();
        let loaded: Vec<Loaded> = files.iter().flat_map(|file| read_file(file, problems)).collect();
        let schema = cedar_schema(space, problems)?;
        validate(&loaded, space, &schema, problems);
        let is_sound =
            !problems.iter().skip(before).any(|problem| problem.level == ringfence_core::Level::Error);
        let types = EntityTypes { user: type_name("User")?, group: type_name("Group")? };
        let slices = space.tools().map(|tool| Some((tool.name().clone(), slice(tool, &loaded)?)));
        let slices = slices.collect::<Option<_>>()?;
        is_sound.then(|| Self { slices, schema, authorizer: Authorizer::new(), decider, types })
    }
}

fn type_name(name: &str) -> Option<EntityTypeName> {
    EntityTypeName::from_str(name).ok()
}

fn uid(kind: &str, id: &str) -> Option<EntityUid> {
    Some(EntityUid::from_type_name_and_id(type_name(kind)?, EntityId::new(id)))
}

fn cedar_schema(space: &ActionSpace, problems: &mut Vec<Problem>) -> Option<Schema> {
    let refuse = |error: cedar_policy::SchemaError| {
        let what = format!("no policy schema can be made of the tools: {error}");
        problems.push(Problem::error(
            Place::start("policies"),
            what,
            "rename the tool or parameter that it names",
        ));
    };
    Schema::from_json_value(schema::of(space)).map_err(refuse).ok()
}

fn read_file(file: &PolicyFile<'_>, problems: &mut Vec<Problem>) -> Vec<Loaded> {
    let statements = statements::split(file.text);
    statements.iter().filter_map(|statement| read_statement(file, statement, problems)).collect()
}

fn read_statement(
    file: &PolicyFile<'_>,
    statement: &Statement<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Loaded> {
    let path = format!("policies/{}", file.name);
    let place = Place::of(&path, file.text, statement.offset);
    let rule = Rule::at(file.name, place.line);
    let id = PolicyId::new(format!("{}:{}", rule.as_str(), place.column));
    match Policy::parse(Some(id), statement.text) {
        Ok(policy) => {
            let approver = approver(&policy, statement, &place, problems);
            Some(Loaded { policy, place, rule: LoadedRule { rule, approver } })
        }
        Err(errors) => {
            for error in errors.iter() {
                let at = first_label(error).map_or(statement.offset, |label| statement.offset + label);
                let what = format!("this policy cannot be read: {error}");
                problems.push(Problem::error(Place::of(&path, file.text, at), what, help(error)));
            }
            None
        }
    }
}

fn first_label(error: &dyn Diagnostic) -> Option<usize> {
    error.labels()?.next().map(|label| label.offset())
}

fn help(error: &dyn Diagnostic) -> String {
    match error.help() {
        Some(help) => help.to_string(),
        None => "see https://docs.cedarpolicy.com for the syntax".to_owned(),
    }
}

/// Reads `@approve`, which only a forbid that looks at the approvals can carry.
fn approver(
    policy: &Policy,
    statement: &Statement<'_>,
    place: &Place,
    problems: &mut Vec<Problem>,
) -> Option<GroupName> {
    let name = policy.annotation("approve")?;
    let mut refuse = |what: String, instead: &str| {
        problems.push(Problem::error(place.clone(), what, instead));
        None
    };
    if policy.effect() == Effect::Permit {
        return refuse("`@approve` stands on a permit".into(), "put it on the forbid that a human may lift");
    }
    if !statement.text.contains("approvals") {
        let instead = format!("end it with `unless {{ context.approvals.contains(\"{name}\") }}`");
        return refuse("`@approve` stands on a forbid that no approval lifts".into(), &instead);
    }
    match GroupName::new(name) {
        Ok(group) => Some(group),
        Err(bad) => refuse(bad.to_string(), "name the group that approves: `@approve(\"team-leads\")`"),
    }
}

fn validate(loaded: &[Loaded], space: &ActionSpace, schema: &Schema, problems: &mut Vec<Problem>) {
    let places: HashMap<&PolicyId, &Place> = loaded.iter().map(|one| (one.policy.id(), &one.place)).collect();
    let place_of =
        |id: &PolicyId| places.get(id).map_or_else(|| Place::start("policies"), |place| (*place).clone());
    let set = match PolicySet::from_policies(loaded.iter().map(|one| one.policy.clone())) {
        Ok(set) => set,
        Err(error) => {
            let what = format!("the policies cannot stand together: {error}");
            return problems.push(Problem::error(Place::start("policies"), what, "separate them"));
        }
    };
    let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
    for error in result.validation_errors() {
        let what =
            format!("this policy does not fit the action-space: {}", without_prefix(&error.to_string()));
        problems.push(Problem::error(place_of(error.policy_id()), what, help(error)));
    }
    let waiting: BTreeSet<&PolicyId> =
        loaded.iter().filter(|one| waits_for_tools(&one.policy, space)).map(|one| one.policy.id()).collect();
    for warning in result.validation_warnings().filter(|warning| !waiting.contains(warning.policy_id())) {
        let what = without_prefix(&warning.to_string()).to_owned();
        let instead = warning.help().map_or_else(
            || "correct what can never hold, or delete the policy".to_owned(),
            |help| help.to_string(),
        );
        problems.push(Problem::warn(place_of(warning.policy_id()), what, instead));
    }
}

/// Whether this is a forbid on effects that no tool has yet: a guard for tools to come, and no mistake.
fn waits_for_tools(policy: &Policy, space: &ActionSpace) -> bool {
    let ActionConstraint::In(groups) = policy.action_constraint() else { return false };
    let present: BTreeSet<EntityUid> = space
        .tools()
        .flat_map(|tool| [schema::effect_group(tool.effect()), tool.name().as_str().to_owned()])
        .filter_map(|name| uid("Action", &name))
        .collect();
    policy.effect() == Effect::Forbid && groups.iter().all(|group| !present.contains(group))
}

/// Cedar begins with "for policy `ID`, "; the place says that already.
fn without_prefix(text: &str) -> &str {
    text.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, ")).map_or(text, |(_, rest)| rest)
}

fn slice(tool: &Tool, loaded: &[Loaded]) -> Option<Slice> {
    let action = uid("Action", tool.name().as_str())?;
    let group = uid("Action", &schema::effect_group(tool.effect()))?;
    let resource = uid("System", tool.system().as_str())?;
    let mut reach = BTreeSet::new();
    reach.insert(action.clone());
    reach.insert(group.clone());
    let relevant: Vec<&Loaded> =
        loaded.iter().filter(|one| could_match(&one.policy, &action, &reach)).collect();
    let entities = vec![
        Entity::new_no_attrs(action.clone(), [group.clone()].into()),
        Entity::new_no_attrs(group, [].into()),
        Entity::new_no_attrs(resource.clone(), [].into()),
    ];
    Some(Slice {
        policies: PolicySet::from_policies(relevant.iter().map(|one| one.policy.clone())).ok()?,
        rules: relevant.iter().map(|one| (one.policy.id().clone(), one.rule.clone())).collect(),
        action,
        resource,
        entities,
    })
}

/// Whether the scope of a policy could match calls of an action that `reach`es these (itself and its groups).
fn could_match(policy: &Policy, action: &EntityUid, reach: &BTreeSet<EntityUid>) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(only) => only == *action,
        ActionConstraint::In(any) => any.iter().any(|one| reach.contains(one)),
    }
}

impl Policies {
    /// Each tool with how many policies its decisions read, for `check --verbose` and tests.
    #[must_use]
    pub fn slice_sizes(&self) -> BTreeMap<&ToolName, usize> {
        self.slices.iter().map(|(tool, slice)| (tool, slice.rules.len())).collect()
    }
}
