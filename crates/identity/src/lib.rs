//! Bearer token to principal, downstream tokens, and the development issuer.
