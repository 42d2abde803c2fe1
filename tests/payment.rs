//! Payments from credit, from offer to ledger row, through the real binary.

mod support;

#[path = "payment/batch.rs"]
mod batch;
#[path = "payment/content.rs"]
mod content;
#[path = "payment/crawl.rs"]
mod crawl;
#[path = "payment/delivery.rs"]
mod delivery;
#[path = "payment/handshake.rs"]
mod handshake;
#[path = "payment/keys.rs"]
mod keys;
#[path = "payment/moved.rs"]
mod moved;
#[path = "payment/prices.rs"]
mod prices;
#[path = "payment/refusals.rs"]
mod refusals;
