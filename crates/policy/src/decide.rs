//! The decision: *allow*, *ask* or *deny*, with the rules that made it.

use std::collections::BTreeSet;

use cedar_policy::{Decision as Cedar, Entities, PolicySet, Response};
use ringfence_actions::Tool;
use ringfence_core::{Call, Decision, GroupName, Instant, Permit, Rule, Run};

use crate::load::{LoadedRule, Slice};
use crate::{Policies, request};

impl Policies {
    /// Decides one call, given the groups that have approved it.
    ///
    /// *Ask* means: denied as it stands, every forbid that fired names its approvers, and with all of them it would be
    /// allowed. A tool that no policy knows, a value that cannot be translated and an error in any policy are *deny*.
    pub fn decide(&self, tool: &Tool, call: Call, approvals: &BTreeSet<GroupName>) -> Decision {
        let deny = |call| Decision::Deny { call, rules: Vec::new() };
        let Some(slice) = self.slices.get(call.tool()).filter(|_| call.tool() == tool.name()) else {
            return deny(call);
        };
        let Ok(entities) = self.entities(slice, call.run()) else { return deny(call) };
        let Ok(first) = self.evaluate(slice, tool, &call, approvals, &entities) else { return deny(call) };
        if first.decision() == Cedar::Allow {
            let rules = rules(slice, &first);
            return Decision::Allow(Permit::grant(&self.decider, call, rules));
        }
        let rules = rules(slice, &first);
        let Some(missing) = approvers(slice, &first) else { return Decision::Deny { call, rules } };
        let with_all: BTreeSet<GroupName> = approvals.union(&missing).cloned().collect();
        match self.evaluate(slice, tool, &call, &with_all, &entities) {
            Ok(second) if second.decision() == Cedar::Allow => {
                Decision::Ask { call, approvers: missing, rules }
            }
            _ => Decision::Deny { call, rules },
        }
    }

    /// Whether some call of this tool could be allowed, or asked, in this run. What is not visible does not exist for it.
    #[must_use]
    pub fn visible(&self, tool: &Tool, run: &Run, at: Instant) -> bool {
        let Some(slice) = self.slices.get(tool.name()) else { return false };
        let Ok(entities) = self.entities(slice, run) else { return false };
        let Ok(request) = self.request_of_any(slice, tool, run, at) else { return false };
        let response = self.authorizer.is_authorized_partial(&request, &slice.policies, &entities);
        let failed = response.definitely_errored().next().is_some();
        !failed && response.decision() != Some(Cedar::Deny)
    }

    fn evaluate(
        &self,
        slice: &Slice,
        tool: &Tool,
        call: &Call,
        approvals: &BTreeSet<GroupName>,
        entities: &Entities,
    ) -> Result<Response, request::Untranslatable> {
        let request = self.request(slice, tool, call, approvals)?;
        let response = self.authorizer.is_authorized(&request, policies(slice), entities);
        // Cedar skips a policy that fails to evaluate; a skipped forbid would fail open.
        if response.diagnostics().errors().next().is_some() {
            return Err(request::Untranslatable);
        }
        Ok(response)
    }
}

fn policies(slice: &Slice) -> &PolicySet {
    &slice.policies
}

fn determining<'a>(slice: &'a Slice, response: &'a Response) -> impl Iterator<Item = &'a LoadedRule> {
    response.diagnostics().reason().filter_map(|id| slice.rules.get(id))
}

fn rules(slice: &Slice, response: &Response) -> Vec<Rule> {
    let sorted: BTreeSet<Rule> = determining(slice, response).map(|loaded| loaded.rule.clone()).collect();
    sorted.into_iter().collect()
}

/// The approvers of all forbids that fired; `None` where there is no such forbid, or one that names none.
fn approvers(slice: &Slice, response: &Response) -> Option<BTreeSet<GroupName>> {
    let named: BTreeSet<GroupName> =
        determining(slice, response).map(|loaded| loaded.approver.clone()).collect::<Option<_>>()?;
    (!named.is_empty()).then_some(named)
}
