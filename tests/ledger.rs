//! The books in a file: real files, real threads, a disk that fails and a process that dies. What does not speak of the file
//! itself is run on a server too: see `ledger_on_postgres.rs`.

#[path = "ledger/archive.rs"]
mod archive;
#[path = "ledger/archived_balances.rs"]
mod archived_balances;
#[path = "ledger/archived_terms.rs"]
mod archived_terms;
#[path = "ledger/audit.rs"]
mod audit;
#[path = "ledger/balances.rs"]
mod balances;
#[path = "ledger/checkpoints.rs"]
mod checkpoints;
#[path = "ledger/closes.rs"]
mod closes;
#[path = "ledger/closing.rs"]
mod closing;
#[path = "ledger/corrections.rs"]
mod corrections;
#[path = "ledger/corrections_crash.rs"]
mod corrections_crash;
#[path = "ledger/crash.rs"]
mod crash;
#[path = "ledger/disk.rs"]
mod disk;
#[path = "ledger/file.rs"]
mod file;
#[path = "ledger/golden.rs"]
mod golden;
#[path = "ledger/home_file.rs"]
mod home;
#[path = "ledger/model.rs"]
mod model;
#[path = "ledger/observed.rs"]
mod observed;
#[path = "ledger/open_accounts.rs"]
mod open_accounts;
#[path = "ledger/passes.rs"]
mod passes;
#[path = "ledger/payments.rs"]
mod payments;
#[path = "ledger/postings.rs"]
mod postings;
#[path = "support/rechain.rs"]
mod rechain;
#[path = "ledger/references.rs"]
mod references;
#[path = "ledger/restored.rs"]
mod restored;
#[path = "ledger/settlement.rs"]
mod settlement;
#[path = "ledger/standing.rs"]
mod standing;
#[path = "ledger/support.rs"]
mod support;
#[path = "ledger/targets.rs"]
mod targets;
#[path = "ledger/terms.rs"]
mod terms;
#[path = "ledger/turns.rs"]
mod turns;
#[path = "ledger/view.rs"]
mod view;
#[path = "ledger/void_cap.rs"]
mod void_cap;
#[path = "ledger/witnesses.rs"]
mod witnesses;
