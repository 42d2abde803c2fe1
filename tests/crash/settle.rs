//! kill -9 of the gateway that is closing days: they are closed wholly or not at all, and settling again ends it.

use std::process::{Command, Stdio};

use rusqlite::Connection;

use crate::support::gateway::{binary, tollgate};
use crate::support::past::{day, ledger};
use crate::support::*;

#[test]
fn a_gateway_killed_over_a_close_leaves_the_days_wholly_open_or_wholly_closed() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let config = site_toml(&origin, &agent, "[signing]\nkey_file = \"gateway.jwk\"\n");
    for purchases in 0..6 {
        let mut dir = tempfile::tempdir().unwrap();
        ledger(dir.path());
        for (round, until) in (0..).zip(&[day(2), day(1), day(0)]) {
            let gateway = Gateway::start_in(dir, &config);
            let args = ["settle", "--json", "--until", until, "-c", "tollgate.toml"];
            let mut settle = Command::new(binary());
            settle.args(args).current_dir(gateway.dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let settle = settle.spawn().unwrap();
            // Each purchase is a commit, so that the kill meets the close at another point each time.
            for i in 0..purchases {
                assert_eq!(agent.buy(gateway.addr, &format!("/paid/{round}/{i}")).status, 200);
            }
            dir = gateway.kill();
            let said = settle.wait_with_output().unwrap();
            let books = Connection::open(dir.path().join("tollgate.sqlite")).unwrap();
            let count = |sql: &str| books.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap();
            let closes = count("SELECT count(*) FROM closes");
            // Who was told that it is done can rely on it; who was not, asks again.
            assert!(closes == round + 1 || (closes == round && said.status.code() == Some(1)), "{closes} {said:?}");
            let told = String::from_utf8_lossy(&said.stderr);
            assert!(said.status.success() || told.contains("ask again") || told.contains("did not answer"), "{told}");
            // What is stated belongs to what is closed, and the other way round.
            let audit = || tollgate(dir.path(), &["ledger", "audit", "-c", "tollgate.toml"]);
            let (code, out, err) = audit();
            assert_eq!(code, 0, "{out}{err}");
            let (code, again, err) = tollgate(dir.path(), &args);
            assert_eq!(code, 0, "{err}");
            assert!(said.status.code() != Some(0) || said.stdout == again.as_bytes(), "{said:?} {again}");
            assert_eq!(count("SELECT count(*) FROM closes"), round + 1);
            let (code, out, err) = audit();
            assert_eq!(code, 0, "{out}{err}");
        }
    }
}
