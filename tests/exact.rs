//! Token payments through the real binary: a wallet that signs, a facilitator that behaves as told, an origin.

mod support;

#[path = "exact/comes_back.rs"]
mod comes_back;
#[path = "exact/handshake.rs"]
mod handshake;
#[path = "exact/storm.rs"]
mod storm;
#[path = "exact/unresolved.rs"]
mod unresolved;
