//! The proxy in front of an origin: what goes through, what does not, and what is done about clients that misbehave.

mod support;

#[path = "proxy/fields.rs"]
mod fields;
#[path = "proxy/framing.rs"]
mod framing;
#[path = "proxy/h2.rs"]
mod h2;
#[path = "proxy/origins.rs"]
mod origins;
#[path = "proxy/paths.rs"]
mod paths;
#[path = "proxy/slow.rs"]
mod slow;
#[path = "proxy/streams.rs"]
mod streams;
#[path = "proxy/upgrades.rs"]
mod upgrades;
