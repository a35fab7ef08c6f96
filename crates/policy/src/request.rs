//! A call in Cedar's terms.

use std::collections::{BTreeSet, HashMap};

use cedar_policy::{Context, Entities, Entity, EntityId, EntityUid, Request, RestrictedExpression};
use ringfence_actions::Tool;
use ringfence_core::{Call, GroupName, Instant, Run, Value};

use crate::Policies;
use crate::load::Slice;

/// A step of the translation failed; the call is denied.
pub(crate) struct Untranslatable;

impl Policies {
    pub(crate) fn entities(&self, slice: &Slice, run: &Run) -> Result<Entities, Untranslatable> {
        let principal = run.principal();
        let group = |name: &GroupName| {
            EntityUid::from_type_name_and_id(self.types.group.clone(), EntityId::new(name.as_str()))
        };
        let groups: Vec<EntityUid> = principal.groups().iter().map(group).collect();
        let attributes = HashMap::from([
            ("issuer".to_owned(), text(principal.issuer())),
            ("subject".to_owned(), text(principal.subject())),
        ]);
        let user = Entity::new(self.user(run), attributes, groups.iter().cloned().collect());
        let user = user.map_err(|_| Untranslatable)?;
        let groups = groups.into_iter().map(|group| Entity::new_no_attrs(group, [].into()));
        let all = slice.entities.iter().cloned().chain([user]).chain(groups);
        Entities::from_entities(all, None).map_err(|_| Untranslatable)
    }

    fn user(&self, run: &Run) -> EntityUid {
        EntityUid::from_type_name_and_id(self.types.user.clone(), EntityId::new(run.principal().subject()))
    }

    pub(crate) fn request(
        &self,
        slice: &Slice,
        tool: &Tool,
        call: &Call,
        approvals: &BTreeSet<GroupName>,
    ) -> Result<Request, Untranslatable> {
        let arguments = call.arguments().iter().map(|(name, value)| (name.to_string(), expression(value)));
        let arguments = record(arguments)?;
        let approvals = RestrictedExpression::new_set(approvals.iter().map(|group| text(group.as_str())));
        let context = context(tool, call.run(), call.at(), arguments, approvals)?;
        let (action, resource) = (slice.action.clone(), slice.resource.clone());
        Request::new(self.user(call.run()), action, resource, context, Some(&self.schema))
            .map_err(|_| Untranslatable)
    }

    /// The request of any call of this tool: its arguments and approvals are unknown.
    pub(crate) fn request_of_any(
        &self,
        slice: &Slice,
        tool: &Tool,
        run: &Run,
        at: Instant,
    ) -> Result<Request, Untranslatable> {
        let unknown = |name: &str| RestrictedExpression::new_unknown(name);
        let context = context(tool, run, at, unknown("arguments"), unknown("approvals"))?;
        let (action, resource) = (slice.action.clone(), slice.resource.clone());
        Request::new(self.user(run), action, resource, context, None).map_err(|_| Untranslatable)
    }
}

fn context(
    tool: &Tool,
    run: &Run,
    at: Instant,
    arguments: RestrictedExpression,
    approvals: RestrictedExpression,
) -> Result<Context, Untranslatable> {
    let labels = RestrictedExpression::new_set(run.labels().iter().map(|label| text(label.as_str())));
    let run_record = record([("id".to_owned(), text(&run.id().to_string())), ("labels".to_owned(), labels)])?;
    let tool_record = record([
        ("effect".to_owned(), text(tool.effect().as_str())),
        ("external".to_owned(), RestrictedExpression::new_bool(tool.external())),
        ("name".to_owned(), text(tool.name().as_str())),
    ])?;
    let pairs = [
        ("agent".to_owned(), text(run.agent().as_str())),
        ("approvals".to_owned(), approvals),
        ("arguments".to_owned(), arguments),
        ("run".to_owned(), run_record),
        ("time".to_owned(), RestrictedExpression::new_datetime(rfc3339(at))),
        ("tool".to_owned(), tool_record),
    ];
    Context::from_pairs(pairs).map_err(|_| Untranslatable)
}

fn record(
    fields: impl IntoIterator<Item = (String, RestrictedExpression)>,
) -> Result<RestrictedExpression, Untranslatable> {
    RestrictedExpression::new_record(fields).map_err(|_| Untranslatable)
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn expression(value: &Value) -> RestrictedExpression {
    match value {
        Value::String(value) => text(value),
        Value::Integer(number) => RestrictedExpression::new_long(*number),
        Value::Number(decimal) => RestrictedExpression::new_decimal(decimal.to_string()),
        Value::Boolean(truth) => RestrictedExpression::new_bool(*truth),
        Value::Array(items) => RestrictedExpression::new_set(items.iter().map(expression)),
    }
}

/// `2026-10-31T12:00:00.000Z`, which is what Cedar's `datetime` reads.
fn rfc3339(at: Instant) -> String {
    let millisecond = i64::try_from(at.0).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(millisecond).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}
