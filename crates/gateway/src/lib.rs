//! Carries a call from the agent to the tool and back.
