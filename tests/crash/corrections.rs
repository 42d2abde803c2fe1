//! kill -9 of the gateway that is told to void charges: each is voided or not, who was told can rely on it, asking again ends it.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::gateway::{binary, tollgate};
use crate::support::*;

#[test]
fn a_gateway_killed_over_voids_leaves_each_made_or_not_and_credit_follows_the_books() {
    let (origin, agent) = (Origin::start(), Agent::start());
    // Room for what is bought below, and for nothing more.
    let config = site_toml(&origin, &agent, "").replace("1000 USD", "0.06 USD");
    for purchases in 0..5 {
        let gateway = Gateway::start(&config);
        for i in 0..6 - purchases {
            assert_eq!(agent.buy(gateway.addr, &format!("/paid/{i}")).status, 200);
        }
        let list = ["ledger", "list", "--json", "--limit", "0", "--ledger", "tollgate.sqlite"];
        let (_, out, _) = tollgate(gateway.dir.path(), &list);
        let rows = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let numbers: Vec<String> = rows.map(|row| row["n"].as_str().unwrap().to_owned()).collect();
        let mut args = vec!["ledger", "void", "--json", "--reason", "wrong", "--ledger", "tollgate.sqlite"];
        args.extend(numbers.iter().map(String::as_str));
        let mut void = Command::new(binary());
        void.args(&args).current_dir(gateway.dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let void = void.spawn().unwrap();
        // Each purchase is a commit, so that the kill meets the voids at another point each time.
        for i in 0..purchases {
            assert_eq!(agent.buy(gateway.addr, &format!("/paid/more/{i}")).status, 200);
        }
        let dir = gateway.kill();
        let said = void.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&said.stderr);
        let books = Books::read(dir.path());
        assert!(!said.status.success() || books.voids.len() == numbers.len(), "{said:?}");
        assert!(said.status.success() || told.contains(" again") || told.contains("did not answer"), "{told}");
        // Again, without a gateway: what was voided is refused, the rest is voided.
        let (code, out, err) = tollgate(dir.path(), &args);
        assert_eq!(code, i32::from(!books.voids.is_empty()), "{out}{err}");
        let books = Books::read(dir.path());
        assert_eq!((books.voids.len(), books.charged()), (numbers.len(), purchases));
        // The account has its credit back, and no more than that.
        let gateway = Gateway::start_in(dir, &config);
        for i in 0..6 - purchases {
            assert_eq!(agent.buy(gateway.addr, &format!("/paid/again/{i}")).status, 200);
        }
        assert_eq!(agent.buy(gateway.addr, "/paid/over").reason(), "credit_exhausted");
    }
}
