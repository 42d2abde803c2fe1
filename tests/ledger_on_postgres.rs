//! What every ledger promises, on a PostgreSQL server: the tests of `ledger.rs` from the same source, but for those of the file
//! itself (`disk`, `file`) and of bytes alone (`golden`).

#[path = "ledger/audit.rs"]
mod audit;
#[path = "ledger/balances.rs"]
mod balances;
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
#[path = "ledger/home_server.rs"]
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
#[allow(dead_code, reason = "other tests need more of it")]
#[path = "support/postgres.rs"]
mod postgres;
#[path = "ledger/postings.rs"]
mod postings;
#[path = "support/rechain.rs"]
mod rechain;
#[path = "ledger/references.rs"]
mod references;
#[path = "ledger/settlement.rs"]
mod settlement;
#[path = "support/skipped.rs"]
mod skipped;
#[path = "ledger/support.rs"]
mod support;
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

use skipped::skipped;
