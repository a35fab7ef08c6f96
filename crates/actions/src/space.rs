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

/// What an agent is told of a name that is not in its action-space, whether or not it exists elsewhere.
///
/// `permitted` are the tools that this principal and agent may call: no other is ever named.
#[must_use]
pub fn unknown_tool<'a>(asked: &str, permitted: impl Iterator<Item = &'a ToolName> + Clone) -> Refusal {
    let near = nearest::of(asked, permitted.clone().map(ToolName::as_str), NEAREST_MAX);
    let nearest: Vec<ToolName> = permitted.filter(|name| near.contains(&name.as_str())).cloned().collect();
    let refusal = Refusal::new(
        "unknown_tool",
        RefusalClass::UnknownTool,
        Wall::ActionSpace,
        Retry::Never,
        "there is no such tool in this action-space; call one that `tools/list` names",
    );
    Refusal { nearest, ..refusal }
}
