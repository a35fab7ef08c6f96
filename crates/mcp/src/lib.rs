//! The Model Context Protocol on the wire: Streamable HTTP, revisions 2026-07-28 and 2025-11-25, server and client side.
//!
//! One parse is judged, and what was judged is what is handed on. Knows nothing of Ringfence: callers, tools and their
//! meaning belong to the [`Service`].

#[cfg(feature = "client")]
pub mod client;
mod header;
pub mod json;
mod message;
mod revision;
mod server;
mod service;
mod sse;
#[cfg(feature = "client")]
pub mod stdio;
mod watch;

pub use revision::Revision;
pub use server::{Settings, router};
pub use service::{
    Challenge, Content, NotRead, OpenUrl, ResourceContents, ResourceDescription, Service, ToolCall,
    ToolDescription, ToolResult,
};
pub use watch::Watch;
