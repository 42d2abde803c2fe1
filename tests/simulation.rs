//! The seeded simulation of money: agents, replicas, crashes, freezes, clocks, disks, closes, over the ledger of one gateway
//! and over a simulated store of several, with every equation of `simulation/equations.rs` after each step.

#[path = "simulation/answer.rs"]
mod answer;
#[path = "simulation/bugs.rs"]
mod bugs;
#[path = "simulation/chain.rs"]
mod chain;
#[path = "simulation/commit.rs"]
mod commit;
#[path = "simulation/database.rs"]
mod database;
#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/equations.rs"]
mod equations;
#[path = "simulation/exchange.rs"]
mod exchange;
#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/model_books.rs"]
mod model_books;
#[path = "simulation/model_store.rs"]
mod model_store;
#[path = "simulation/payments.rs"]
mod payments;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "support/random.rs"]
#[allow(dead_code)]
mod random;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/sqlite.rs"]
mod sqlite;
#[path = "simulation/sqlite_books.rs"]
mod sqlite_books;
#[path = "simulation/steps.rs"]
mod steps;
#[path = "simulation/stores.rs"]
mod stores;
#[path = "simulation/world.rs"]
mod world;

use std::time::Duration;

use run::Over;

#[test]
fn money_is_conserved_in_the_ledger_of_one_gateway() {
    run::all(|_| Over::Sqlite, Duration::from_secs(20), Duration::from_secs(1800));
}

#[test]
fn money_is_conserved_by_several_gateways_over_the_simulated_store() {
    let over = |seed: u64| Over::Model { tombstones: seed.is_multiple_of(2) };
    run::all(over, Duration::from_secs(15), Duration::from_secs(1200));
}
