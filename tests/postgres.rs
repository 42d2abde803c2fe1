//! Books on a PostgreSQL server, shared by several gateways: a real server, real processes.

mod support;

#[path = "ledger/payments.rs"]
mod ledger;

#[path = "postgres/account.rs"]
mod account;

#[path = "postgres/archive.rs"]
mod archive;

#[path = "postgres/audit.rs"]
mod audit;

#[path = "postgres/backup.rs"]
mod backup;

#[path = "postgres/listing.rs"]
mod listing;

#[path = "postgres/store.rs"]
mod store;

#[path = "postgres/observed.rs"]
mod observed;

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

#[path = "postgres/bounds.rs"]
mod bounds;
