//! Token payments through the real binary: a wallet that signs, a facilitator that behaves as told, an origin.

mod support;

#[path = "exact/forms.rs"]
mod forms;
#[path = "exact/handshake.rs"]
mod handshake;
#[path = "exact/storm.rs"]
mod storm;
#[path = "exact/tamper.rs"]
mod tamper;
#[path = "exact/unresolved.rs"]
mod unresolved;
