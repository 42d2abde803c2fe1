//! The seeded simulation of money: agents, replicas, crashes, freezes, clocks, failing disks, disputes, closes, with every equation of
//! `simulation/equations.rs` after each step.
//!
//! | over | what it is |
//! |---|---|
//! | `sqlite.rs` | the ledger of one gateway: real files, the real writer, a disk that fails or hangs at any commit |
//! | `postgres.rs` | the ledger of several gateways: a real server, real writers, a wire between them that fails at any commit |
//! | `model.rs` | several gateways over a simulated database, after the rules for such; bugs can be put into it |
//!
//! A seed is a run: `plan.rs` throws the dice, `world.rs` takes each step, `exchange.rs` is a request's way from claim to
//! answer in the gateway's order, `answer.rs` and `chain.rs` what clients, origins, facilitators and the chain do. A step
//! is data of its own, so a run that fails is shortened by leaving steps out, and printed as a test for `kept.rs`; not over a
//! server, where a seed is only nearly a run.
//!
//! Seeds go on from `TOLLGATE_TEST_SEED` for about fifty seconds, with `TOLLGATE_TEST_LONG=1` for seventy minutes. By hand:
//!
//! ```text
//! TOLLGATE_SIMULATION_SEED=8402000042 cargo test --test simulation money_is_conserved_in
//! ```

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
#[path = "simulation/kept.rs"]
mod kept;
#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/model_books.rs"]
mod model_books;
#[path = "simulation/model_store.rs"]
mod model_store;
#[path = "simulation/orders.rs"]
mod orders;
#[path = "simulation/payments.rs"]
mod payments;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/postgres.rs"]
mod postgres;
#[path = "simulation/postgres_books.rs"]
mod postgres_books;
#[path = "simulation/postgres_process.rs"]
mod postgres_process;
#[path = "simulation/postgres_server.rs"]
mod postgres_server;
#[path = "support/random.rs"]
#[allow(dead_code)]
mod random;
#[path = "simulation/run.rs"]
mod run;
#[path = "support/postgres.rs"]
#[allow(dead_code)]
mod server;
#[path = "support/skipped.rs"]
mod skipped;
#[path = "simulation/sqlite.rs"]
mod sqlite;
#[path = "simulation/sqlite_books.rs"]
mod sqlite_books;
#[path = "simulation/steps.rs"]
mod steps;
#[path = "simulation/stores.rs"]
mod stores;
#[path = "simulation/wire.rs"]
mod wire;
#[path = "simulation/world.rs"]
mod world;

use std::time::Duration;

use postgres_server::Database;
use run::{Over, Tally, seeded};
use skipped::skipped;

#[test]
fn money_is_conserved_in_the_ledger_of_one_gateway() {
    run::all(|_| Over::Sqlite, Duration::from_secs(20), Duration::from_secs(1800));
}

#[test]
fn money_is_conserved_by_several_gateways_over_the_simulated_store() {
    let over = |seed: u64| Over::Model { tombstones: seed.is_multiple_of(2) };
    run::all(over, Duration::from_secs(15), Duration::from_secs(1200));
}

#[test]
fn money_is_conserved_by_several_gateways_over_a_postgresql_server() {
    if Database::is_there("simulation::over_a_postgresql_server") {
        run::all(|_| Over::Postgres, Duration::from_secs(15), Duration::from_secs(1200));
    }
}

#[test]
fn a_seed_is_a_run() {
    for over in [Over::Sqlite, Over::Model { tombstones: true }] {
        for seed in 0..4 {
            let [first, second] = [(), ()].map(|()| {
                let mut tally = Tally::new();
                let (steps, end) = seeded(over, None, seed, &mut tally);
                (steps, end, tally)
            });
            assert_eq!(first, second, "seed {seed} over {over:?}");
        }
    }
}
