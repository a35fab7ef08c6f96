//! The revisions of the protocol that are spoken here.

/// A revision of the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Revision {
    /// 2025-11-25: begins with `initialize`. Sessions are optional there, and none are issued here.
    V2025,
    /// 2026-07-28: each request stands for itself.
    V2026,
}

impl Revision {
    /// All of them, newest first.
    pub const ALL: [Self; 2] = [Self::V2026, Self::V2025];

    /// The date that names it on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2025 => "2025-11-25",
            Self::V2026 => "2026-07-28",
        }
    }
}
