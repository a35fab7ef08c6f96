//! Policies in, decisions out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cedar_policy::{Decision as Cedar, PolicySet};
use proptest::prelude::*;
use ringfence_actions::{ActionSpace, File, SystemKind};
use ringfence_core::{
    AgentId, Authorities, Call, CallId, Decision, GroupName, Instant, Label, Principal, Problem, Run,
    SystemName,
};

use crate::{Policies, PolicyFile};

const TOOLS: &str = r#"
[read_metrics]
system = "metrics"
effect = "read"
describe = "Reads."
sql = "SELECT :user_id"
params.user_id = { type = "string" }

[refund]
system = "bank"
effect = "irreversible"
external = true
describe = "Refunds."
sql = "SELECT :amount + :note"
params.amount = { type = "number", minimum = 0 }
params.note = { type = "string", optional = true }
"#;

const POLICIES: &str = r#"// analysts read
permit (principal in Group::"analysts", action in Action::"effect/read", resource == System::"metrics");

permit (principal in Group::"clerks", action == Action::"refund", resource)
when { context.arguments.amount.lessThan(decimal("1000.0")) };

@approve("team-leads")
forbid (principal, action in Action::"effect/irreversible", resource)
unless { context.approvals.contains("team-leads") };

@approve("security")
forbid (principal, action, resource)
when { context.tool.external && context.run.labels.contains("untrusted") }
unless { context.approvals.contains("security") };

forbid (principal == User::"mallory", action, resource);
"#;

fn space() -> ActionSpace {
    let systems = ["metrics", "bank"].map(|name| (SystemName::new(name).unwrap(), SystemKind::Sqlite));
    let mut problems = Vec::new();
    let space = ActionSpace::read(
        &[File { name: "tools/t.toml", text: TOOLS }],
        &BTreeMap::from(systems),
        &mut problems,
    );
    assert_eq!(problems, []);
    space
}

fn load(text: &str) -> Result<Policies, Vec<Problem>> {
    let mut problems = Vec::new();
    let decider = Authorities::establish().decider;
    let policies = Policies::load(&[PolicyFile { name: "p.cedar", text }], &space(), decider, &mut problems);
    policies.ok_or(problems)
}

fn policies(text: &str) -> Policies {
    load(text).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn run(subject: &str, groups: &[&str], labels: &[Label]) -> Run {
    let groups = groups.iter().map(|group| GroupName::new(*group).unwrap()).collect();
    let verifier = Authorities::establish().verifier;
    let principal = Principal::verified(
        &verifier,
        "https://id.test".into(),
        subject.into(),
        groups,
        serde_json::Map::new(),
    );
    let (id, agent) = (serde_json::from_str("\"run-1\"").unwrap(), AgentId::new("agent").unwrap());
    Run::new(id, principal, agent, Instant(u64::MAX), Arc::default(), labels.iter().copied().collect())
}

fn call(space: &ActionSpace, run: Run, tool: &str, arguments: &str) -> Call {
    let tool = space.tool(tool).unwrap();
    let given: serde_json::Value = serde_json::from_str(arguments).unwrap();
    let arguments = tool.check(given.as_object().unwrap(), run.principal()).unwrap();
    let id = CallId(serde_json::from_str("\"0192f0c1-7b1e-7c3a-9f00-3b1f5a2c4d6e\"").unwrap());
    Call::new(id, Instant(1_800_000_000_000), run, tool.name().clone(), tool.system().clone(), arguments)
}

fn decide(policies: &Policies, run: Run, tool: &str, arguments: &str, approvals: &[&str]) -> String {
    let space = space();
    let approvals: BTreeSet<GroupName> =
        approvals.iter().map(|name| GroupName::new(*name).unwrap()).collect();
    let (word, rules, approvers) =
        match policies.decide(space.tool(tool).unwrap(), call(&space, run, tool, arguments), &approvals) {
            Decision::Allow(permit) => ("allow", permit.rules().to_vec(), BTreeSet::new()),
            Decision::Ask { rules, approvers, .. } => ("ask", rules, approvers),
            Decision::Deny { rules, .. } => ("deny", rules, BTreeSet::new()),
        };
    let mut because: Vec<String> = rules.iter().map(ToString::to_string).collect();
    because.extend(approvers.iter().map(ToString::to_string));
    format!("{word} ({})", if because.is_empty() { "no rule".to_owned() } else { because.join(", ") })
}

#[test]
fn no_rule_means_no_a_forbid_wins_and_named_approvers_make_it_an_ask() {
    let policies = policies(POLICIES);
    let small = r#"{"amount": 12.5}"#;
    let mut table = String::new();
    let mut row = |what: &str, decision: String| table.extend([format!("{what:<34} {decision}\n")]);
    let read = |run| decide(&policies, run, "read_metrics", r#"{"user_id": "u"}"#, &[]);
    row("analyst reads", read(run("ann", &["analysts"], &[])));
    row("stranger reads", read(run("eve", &[], &[])));
    row("mallory, an analyst, reads", read(run("mallory", &["analysts"], &[])));
    let refund = |run, arguments, approvals: &[&str]| decide(&policies, run, "refund", arguments, approvals);
    let clerk = || run("cleo", &["clerks"], &[]);
    row("clerk refunds", refund(clerk(), small, &[]));
    row("the same, approved", refund(clerk(), small, &["team-leads"]));
    row("the same, approved by others", refund(clerk(), small, &["analysts"]));
    row("clerk refunds too much", refund(clerk(), r#"{"amount": 1000}"#, &[]));
    row("too much, approved", refund(clerk(), r#"{"amount": 1000}"#, &["team-leads"]));
    let tainted = || run("cleo", &["clerks"], &[Label::Untrusted]);
    row("clerk refunds, untrusted", refund(tainted(), small, &[]));
    row("the same, half approved", refund(tainted(), small, &["team-leads"]));
    row("the same, approved", refund(tainted(), small, &["team-leads", "security"]));
    row("mallory refunds, approved", refund(run("mallory", &["clerks"], &[]), small, &["team-leads"]));
    insta::assert_snapshot!(table, @"
    analyst reads                      allow (p.cedar:2)
    stranger reads                     deny (no rule)
    mallory, an analyst, reads         deny (p.cedar:16)
    clerk refunds                      ask (p.cedar:7, team-leads)
    the same, approved                 allow (p.cedar:4)
    the same, approved by others       ask (p.cedar:7, team-leads)
    clerk refunds too much             deny (p.cedar:7)
    too much, approved                 deny (no rule)
    clerk refunds, untrusted           ask (p.cedar:11, p.cedar:7, security, team-leads)
    the same, half approved            ask (p.cedar:11, security)
    the same, approved                 allow (p.cedar:4)
    mallory refunds, approved          deny (p.cedar:16)
    ");
}

#[test]
fn only_what_some_call_could_be_allowed_is_visible() {
    let (policies, space) = (policies(POLICIES), space());
    let visible = |run: &Run| {
        let tools = space.tools().filter(|tool| policies.visible(tool, run, Instant(1_800_000_000_000)));
        tools.map(|tool| tool.name().to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(visible(&run("ann", &["analysts"], &[])), "read_metrics");
    assert_eq!(visible(&run("cleo", &["clerks"], &[Label::Untrusted])), "refund");
    assert_eq!(visible(&run("both", &["clerks", "analysts"], &[])), "read_metrics refund");
    assert_eq!(visible(&run("mallory", &["clerks", "analysts"], &[])), "");
    assert_eq!(visible(&run("eve", &[], &[])), "");
}

#[test]
fn a_policy_that_fails_to_evaluate_denies() {
    let overflow = "permit (principal, action, resource);\n\
        forbid (principal, action == Action::\"read_metrics\", resource)\n\
        when { 9223372036854775807 + (if principal.subject == \"x\" then 0 else 1) == 0 };";
    let policies = policies(overflow);
    let read =
        |subject| decide(&policies, run(subject, &[], &[]), "read_metrics", r#"{"user_id": "u"}"#, &[]);
    assert_eq!(read("x"), "allow (p.cedar:1)");
    assert_eq!(read("y"), "deny (no rule)");
}

#[test]
fn every_wrong_policy_is_named_by_its_place_with_what_to_write() {
    let wrong = r#"
permit (principal, action == Action::"read_metrics", resource) when { context.arguments.nothing == 1 };
permit (principal in Grup::"x", action, resource);
permit (principal, action, resource) when { context.tool.external == "yes" };
forbid (principal, action == Action::"refund", resource) when { context.arguments.note == "x" };
@approve("team-leads")
permit (principal, action, resource);
@approve("team-leads")
forbid (principal, action, resource);
permit (principal action, resource);
permit (principal == ?principal, action, resource);
"#;
    let problems = load(wrong).err().unwrap();
    insta::assert_snapshot!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
}

/// One policy out of parts that meet every kind of scope and condition.
fn any_policy() -> impl Strategy<Value = String> {
    let effect = prop_oneof![Just("permit"), Just("forbid")];
    let principal =
        prop_oneof![Just("principal"), Just("principal in Group::\"a\""), Just("principal == User::\"u\"")];
    let action = prop_oneof![
        Just("action"),
        Just("action == Action::\"read_metrics\""),
        Just("action == Action::\"refund\""),
        Just("action in Action::\"effect/read\""),
        Just("action in [Action::\"effect/read\", Action::\"refund\"]"),
        Just("action in [Action::\"effect/write\", Action::\"effect/irreversible\"]"),
    ];
    let resource = prop_oneof![Just("resource"), Just("resource == System::\"metrics\"")];
    let condition = prop_oneof![
        Just(""),
        Just("when { context.tool.external }"),
        Just("unless { context.run.labels.contains(\"untrusted\") }")
    ];
    (effect, principal, action, resource, condition).prop_map(
        |(effect, principal, action, resource, condition)| {
            format!("{effect} ({principal}, {action}, {resource}) {condition};\n")
        },
    )
}

fn all_decisions(policies: &Policies) -> Vec<(Run, &'static str, String)> {
    let groups: [&[&str]; 2] = [&[], &["a"]];
    let labels: [&[Label]; 2] = [&[], &[Label::Untrusted]];
    let mut decisions = Vec::new();
    for (tool, arguments) in [("read_metrics", r#"{"user_id": "u"}"#), ("refund", r#"{"amount": 1}"#)] {
        for (groups, labels) in
            groups.iter().flat_map(|groups| labels.iter().map(move |labels| (groups, labels)))
        {
            for subject in ["u", "v"] {
                let run = run(subject, groups, labels);
                decisions.push((run.clone(), tool, decide(policies, run, tool, arguments, &[])));
            }
        }
    }
    decisions
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_slice_decides_as_all_policies_would(texts in proptest::collection::vec(any_policy(), 0..8)) {
        let policies = policies(&texts.concat());
        let every: BTreeMap<_, _> = policies.slices.values().flat_map(|slice| {
            slice.policies.policies().map(|policy| (policy.id().to_string(), policy.clone()))
        }).collect();
        let whole = PolicySet::from_policies(every.into_values()).unwrap();
        let space = space();
        for (run, tool, decided) in all_decisions(&policies) {
            let slice = &policies.slices[tool];
            let arguments = if tool == "refund" { r#"{"amount": 1}"# } else { r#"{"user_id": "u"}"# };
            let call = call(&space, run.clone(), tool, arguments);
            let request = policies.request(slice, space.tool(tool).unwrap(), &call, &BTreeSet::new()).ok().unwrap();
            let entities = policies.entities(slice, &run).ok().unwrap();
            let unsliced = policies.authorizer.is_authorized(&request, &whole, &entities).decision();
            prop_assert_eq!(unsliced == Cedar::Allow, decided.starts_with("allow"), "{} {}", tool, decided);
        }
    }

    #[test]
    fn adding_a_forbid_never_allows_more(
        texts in proptest::collection::vec(any_policy(), 0..6),
        added in any_policy().prop_filter("a forbid", |text| text.starts_with("forbid")),
    ) {
        let before = all_decisions(&policies(&texts.concat()));
        let after = all_decisions(&policies(&(texts.concat() + &added)));
        for ((_, tool, before), (_, _, after)) in before.iter().zip(&after) {
            prop_assert!(before.starts_with("allow") || !after.starts_with("allow"), "{tool}: {before} -> {after}");
        }
    }

    #[test]
    fn what_is_allowed_or_asked_is_visible(texts in proptest::collection::vec(any_policy(), 0..8)) {
        let policies = policies(&texts.concat());
        let space = space();
        for (run, tool, decided) in all_decisions(&policies) {
            let visible = policies.visible(space.tool(tool).unwrap(), &run, Instant(1_800_000_000_000));
            prop_assert!(visible || decided.starts_with("deny"), "{tool}: {decided}, yet not visible");
        }
    }
}
