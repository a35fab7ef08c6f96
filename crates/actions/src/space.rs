//! The action-space: all tools of a project, by name.

use std::collections::BTreeMap;

use ringfence_core::{Refusal, RefusalClass, Retry, ToolName, Wall};

use crate::{Tool, nearest};

/// How many near names a refusal lists.
const NEAREST_MAX: usize = 3;

/// All tools of a project. What is not in it does not exist.
#[derive(Clone, Debug, Default)]
pub struct ActionSpace {
    tools: BTreeMap<ToolName, Tool>,
}

impl ActionSpace {
    pub(crate) fn new(tools: BTreeMap<ToolName, Tool>) -> Self {
        Self { tools }
    }

    /// The tool of this name.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.get(name)
    }

    /// All tools, in the order of their names.
    #[must_use]
    pub fn tools(&self) -> impl ExactSizeIterator<Item = &Tool> {
        self.tools.values()
    }
}

/// The tools whose names are nearest to this one, best first; at most three.
#[must_use]
pub fn nearest_tools(asked: &str, permitted: &[&ToolName]) -> Vec<ToolName> {
    let ranked = nearest::ranked(asked, permitted.iter().map(|name| name.as_str()));
    let named = |near: &str| permitted.iter().find(|name| name.as_str() == near).map(|name| (*name).clone());
    ranked.into_iter().take(NEAREST_MAX).filter_map(|(_, near)| named(near)).collect()
}

/// What an agent is told of a name that is not in its action-space, whether or not it exists elsewhere.
///
/// `permitted` are the tools that this principal and agent may call: no other is ever named.
#[must_use]
pub fn unknown_tool(asked: &str, permitted: &[&ToolName]) -> Refusal {
    let refusal = Refusal::new(
        "unknown_tool",
        RefusalClass::UnknownTool,
        Wall::ActionSpace,
        Retry::Never,
        "there is no such tool in this action-space; call one that `tools/list` names",
    );
    let allowed = match permitted.len() {
        0 => "no tool at all under this user's name".to_owned(),
        1 => "the one tool that `tools/list` names".to_owned(),
        many => format!("the {many} tools that `tools/list` names"),
    };
    Refusal { nearest: nearest_tools(asked, permitted), allowed: Some(allowed), ..refusal }
}
