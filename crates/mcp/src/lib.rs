//! The Model Context Protocol on the wire, both revisions, server and client side.
