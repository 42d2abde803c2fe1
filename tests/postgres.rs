//! Books on a PostgreSQL server, shared by several gateways: a real server, real processes.

mod support;

#[path = "ledger/payments.rs"]
mod ledger;

#[path = "postgres/store.rs"]
mod store;

#[path = "postgres/replicas.rs"]
mod replicas;

#[path = "postgres/opening.rs"]
mod opening;

#[path = "postgres/closing.rs"]
mod closing;

#[path = "postgres/commands.rs"]
mod commands;

#[path = "postgres/secrets.rs"]
mod secrets;
