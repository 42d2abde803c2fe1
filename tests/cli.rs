//! The commands, through the binary.

mod support;

#[path = "cli/account.rs"]
mod account;
#[path = "cli/archive.rs"]
mod archive;
#[path = "cli/audit.rs"]
mod audit;
#[path = "cli/backup.rs"]
mod backup;
#[path = "cli/books.rs"]
mod books;
#[path = "cli/corrections.rs"]
mod corrections;
#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/explain.rs"]
mod explain;
#[path = "cli/exports.rs"]
mod exports;
#[path = "cli/keys.rs"]
mod keys;
#[path = "cli/pay.rs"]
mod pay;
#[path = "cli/probe.rs"]
mod probe;
#[path = "support/rechain.rs"]
mod rechain;
#[path = "cli/settle.rs"]
mod settle;
#[path = "cli/statements.rs"]
mod statements;
#[path = "cli/targets.rs"]
mod targets;
#[path = "cli/tls.rs"]
mod tls;
#[path = "cli/tokens.rs"]
mod tokens;
#[path = "cli/usage.rs"]
mod usage;
#[path = "cli/verify.rs"]
mod verify;
