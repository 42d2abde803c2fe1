//! Bytes ↔ types. A file for each format, decoding beside encoding, no I/O and no clock.

pub mod agent_url;
pub mod amount;
pub mod content_digest;
pub mod deferred;
pub mod directory;
pub mod entity_tag;
pub mod evm;
pub mod forwarded;
pub mod host;
pub mod jwk;
pub mod mcp;
pub mod signature;
pub mod signature_agent;
pub mod x402;
