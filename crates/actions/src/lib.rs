//! The action-space: tool files become checked tools, and what an agent sends becomes checked arguments.
//!
//! Nothing here touches a system; a statement is proved narrow by the system that runs it (`ringfence-tools`).

mod check;
pub mod file;
mod format;
mod load;
mod nearest;
mod operation;
mod param;
mod schema;
mod space;
mod tool;

pub use check::claim_missing;
pub use file::File;
pub use format::Format;
pub use operation::{HttpRequest, Method, Operation, PathSegment};
pub use param::{Binding, Param, ParamType, Scalar, Source};
pub use space::{ActionSpace, nearest_tools, unknown_tool};
pub use tool::{Limits, SystemKind, Tool};
