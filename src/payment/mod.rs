//! The pure decision: what is offered, what was presented, and whether it buys the resource.
//!
//! Nothing here does I/O or reads a clock. A decision that needs a key from an agent's directory hands out a
//! [`signed::Candidate`]; the gate fetches and calls again.

pub mod batch;
pub mod bazaar;
pub mod catalogue;
pub mod crawl;
pub mod deferred;
pub mod exact;
pub mod gateway_key;
pub mod id;
pub mod identifier;
pub mod key;
pub mod offer;
pub mod offer_receipt;
pub mod page;
pub mod pass;
pub mod permit;
pub mod pieces;
pub mod presented;
pub mod quoted;
pub mod reason;
pub mod secrets;
pub mod signed;
pub mod terms;
pub mod token;
pub mod upto;
