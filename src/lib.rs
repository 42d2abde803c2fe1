//! Tollgate: an HTTP reverse proxy that puts a price on a website for agents.
//!
//! The modules stand in reading order, pure ones first; imports point inwards
//! (`tests/tidy.rs` enforces it):
//!
//! | module | what it is | may import |
//! |---|---|---|
//! | [`wire`] | bytes ↔ types, one file a format | nothing of ours |
//! | [`pricing`] | host, path, method → route and price | `wire` |
//! | [`payment`] | sealed ids, offers, the verdict on a presented payment | `wire`, `pricing` |
//! | [`clock`] | the only reader of time | nothing of ours |
//! | [`config`] | TOML → checked [`config::Config`] | pure modules |
//! | [`identity`] | key directories of agents: cache, fetch, address guard | pure modules, `clock`, `config` |
//! | [`facilitator`] | who checks token payments and moves the money; the sandbox | pure modules, `clock`, `tls` |
//! | [`ledger`] | what was paid: claims, postings, chain, SQLite | pure modules, `clock` |
//! | [`telemetry`] | counts, and a line for each request | pure modules |
//! | [`proxy`] | a request's way, from socket to origin and back | all above |
//! | [`server`] | configuration → running parts; drain | all above |
//! | [`agent`] | the paying client | pure modules, `clock`, `tls` |
//! | [`cli`] | the commands | everything |

pub mod agent;
pub mod cli;
pub mod clock;
pub mod config;
pub mod facilitator;
pub mod identity;
pub mod ledger;
pub mod payment;
pub mod pricing;
pub mod proxy;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod wire;
