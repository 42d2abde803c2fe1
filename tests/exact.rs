//! Token payments through the real binary: a wallet that signs, a facilitator that behaves as told, an origin.

mod support;

#[path = "exact/after_body.rs"]
mod after_body;
#[path = "exact/bodies.rs"]
mod bodies;
#[path = "exact/comes_back.rs"]
mod comes_back;
#[path = "exact/forms.rs"]
mod forms;
#[path = "exact/handshake.rs"]
mod handshake;
#[path = "exact/late.rs"]
mod late;
#[path = "exact/moved.rs"]
mod moved;
#[path = "exact/named.rs"]
mod named;
#[path = "exact/owed.rs"]
mod owed;
#[path = "exact/races.rs"]
mod races;
#[path = "exact/refusals.rs"]
mod refusals;
#[path = "exact/storm.rs"]
mod storm;
#[path = "exact/tamper.rs"]
mod tamper;
#[path = "exact/throttle.rs"]
mod throttle;
#[path = "exact/unresolved.rs"]
mod unresolved;
#[path = "exact/upto.rs"]
mod upto;
