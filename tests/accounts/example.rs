//! `config/accounts.toml`: each of its customers buys on its own terms.

use crate::licence::entries;
use crate::support::gateway::tollgate;
use crate::support::*;

#[test]
fn the_example_with_four_kinds_of_customers_does_what_it_says() {
    let origin = Origin::start();
    let agents: Vec<Agent> = (0..4).map(|_| Agent::start()).collect();
    let [monthly, licensee, subscriber, advance] = &agents[..] else { unreachable!() };
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/accounts.toml")).unwrap();
    let toml = file
        .replace("127.0.0.1:8402", "127.0.0.1:0")
        .replace("127.0.0.1:8080", &origin.addr.to_string())
        .replace("https://monthly.example", &monthly.url)
        .replace("https://licensee.example", &licensee.url)
        .replace("https://subscriber.example", &subscriber.url)
        .replace("https://advance.example", &advance.url)
        .replace("allowance = 10000", "allowance = 1");
    let gateway = Gateway::start(&toml);
    let topup = ["ledger", "topup", "payer-in-advance", "50 USD", "--reference", "invoice 1", "-c", "tollgate.toml"];
    let (code, _, err) = tollgate(gateway.dir.path(), &topup);
    assert_eq!(code, 0, "{err}");
    for (agent, path) in [
        (monthly, "/articles/1"),
        (licensee, "/articles/1"),
        (licensee, "/archive/1"),
        (subscriber, "/articles/1"),
        (subscriber, "/articles/2"),
        (subscriber, "/archive/1"),
        (advance, "/archive/1"),
    ] {
        let answer = agent.buy(gateway.addr, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    let (_, dir) = gateway.stop();
    let rows = entries(dir.path());
    let captures = rows.iter().filter(|row| row["kind"] == "capture");
    let text = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
    let charged: Vec<String> = captures
        .map(|row| format!("{} {} {}", text(row, "account"), text(row, "amount"), text(row, "asset")))
        .collect();
    let expected = [
        "by-the-month 0.03 USD",
        "licensee 0.01 USD",
        "licensee 0.00 USD",
        "subscriber 1 requests",
        "subscriber 0.03 USD",
        "subscriber 1.00 USD",
        "payer-in-advance 1.00 prepaid:USD",
    ];
    assert_eq!(charged, expected);
    let (code, out, err) = tollgate(dir.path(), &["ledger", "balance", "-c", "tollgate.toml"]);
    assert_eq!(code, 0, "{err}");
    let period = out.split_whitespace().find(|word| word.ends_with(':') && word.starts_with("20")).unwrap().to_owned();
    let expected = format!(
        "by-the-month  credit {period} 0.03 USD of 100.00 USD used\n\
         licensee  credit {period} 0.01 USD of 500.00 USD used\n\
         payer-in-advance  prepaid: 49.00 USD left of 50.00 USD, 1.00 USD spent\n\
         subscriber  credit {period} 1.03 USD of 20.00 USD used\n\
         subscriber  allowance {period} 1 requests of 1 requests used\n"
    );
    assert_eq!(out, expected);
}
