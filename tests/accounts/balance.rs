//! `prepaid`: an account that pays before it buys.

use serde_json::Value;

use crate::licence::{charges, entries, site};
use crate::support::gateway::tollgate;
use crate::support::*;

const PREPAID: &str = "prepaid = \"USD\"";

fn run(gateway: &Gateway, args: &[&str]) -> (i32, String, String) {
    let config = ["-c", "tollgate.toml"];
    tollgate(gateway.dir.path(), &[&["ledger"], args, &config[..]].concat())
}

fn topup(gateway: &Gateway, amount: &str, reference: &str) -> (i32, String, String) {
    run(gateway, &["topup", "acme", amount, "--reference", reference])
}

#[test]
fn a_balance_is_topped_up_spent_and_topped_up_again_while_the_gateway_runs() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site(&origin, &agent, PREPAID, ""));
    let refused = agent.buy(gateway.addr, "/paid/a");
    assert_eq!((refused.status, refused.reason(), refused.header("retry-after")), (402, "credit_exhausted", None));
    assert!(refused.text().contains("prepaid balance"), "{}", refused.text());
    let (code, out, err) = topup(&gateway, "0.02 USD", "invoice 1");
    assert_eq!(
        (code, out.as_str()),
        (0, "acme: 0.02 USD paid in (entry 281474976710657); the balance is 0.02 USD\n"),
        "{err}"
    );
    for path in ["/paid/a", "/paid/b"] {
        assert_eq!(agent.buy(gateway.addr, path).status, 200);
    }
    assert_eq!(agent.buy(gateway.addr, "/paid/c").reason(), "credit_exhausted");
    let (code, out, _) = topup(&gateway, "0.02 USD", "invoice 1");
    assert_eq!(code, 0);
    assert!(out.contains("already, nothing was posted"), "{out}");
    assert_eq!(agent.buy(gateway.addr, "/paid/c").reason(), "credit_exhausted");
    let (code, out, _) = run(&gateway, &["topup", "acme", "5 USD", "--reference", "invoice 2", "--json"]);
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &said["balance"], &said["way"], &said["posted"]),
        (0, &"5.00".into(), &"paid_in".into(), &true.into())
    );
    assert_eq!(agent.buy(gateway.addr, "/archive/c").status, 200);
    let (code, out, _) = run(&gateway, &["balance"]);
    assert_eq!((code, out.as_str()), (0, "acme  prepaid: 4.00 USD left of 5.02 USD, 1.02 USD spent\n"));
    let (code, out, _) = run(&gateway, &["balance", "acme", "--json"]);
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &said["left"], &said["used"], &said["kind"]),
        (0, &"4.00".into(), &"1.02".into(), &"prepaid".into())
    );
    let expected: Vec<_> = ["0.01", "0.01", "1.00"].map(|amount| (amount.to_owned(), "prepaid:USD".to_owned())).into();
    assert_eq!(charges(gateway), expected);
}

#[test]
fn what_is_left_is_paid_back_while_the_gateway_runs_and_is_not_spent_then() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site(&origin, &agent, PREPAID, ""));
    assert_eq!(topup(&gateway, "2 USD", "in").0, 0);
    let back = |amount, reference| run(&gateway, &["topup", "acme", amount, "--reference", reference, "--back"]);
    let (code, _, err) = back("2.01 USD", "out");
    assert_eq!(code, 1);
    assert!(err.contains("the balance is 2.00 USD, less than that"), "{err}");
    assert_eq!(back("1.99 USD", "out").0, 0);
    assert_eq!(agent.buy(gateway.addr, "/archive/a").reason(), "credit_exhausted");
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    let (_, dir) = gateway.stop();
    let kinds: Vec<_> = entries(dir.path()).into_iter().map(|row| row["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["topup", "topup", "capture"]);
    // Without a gateway the command takes the ledger's lock.
    let args = ["ledger", "topup", "acme", "1 USD", "--reference", "later", "-c", "tollgate.toml"];
    let (code, out, err) = tollgate(dir.path(), &args);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("the balance is 1.00 USD"), "{out}");
    // Each command that looks at entries knows them.
    for args in [
        &["show", "281474976710657"][..],
        &["report"],
        &["export", "--format", "csv", "-o", "out.csv"],
        &["verify", "281474976710657"],
        &["list", "--account", "acme"],
    ] {
        let (code, out, err) = tollgate(dir.path(), &[&["ledger"], args, &["--ledger", "tollgate.sqlite"]].concat());
        assert!(matches!(code, 0 | 5 | 6), "{args:?}: {code} {out}{err}");
        println!("{args:?} {code}\n{out}{err}");
    }
}

#[test]
fn a_slip_of_the_pen_is_told_before_anything_is_noted() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let more = "[[accounts]]\nname = \"later\"\nagents = [\"https://later.example\"]\ncredit = \"1 USD\"\n";
    let gateway = Gateway::start(&site(&origin, &agent, PREPAID, more));
    for (args, code, says) in [
        (
            &["topup", "acmee", "1 USD", "--reference", "x"][..],
            2,
            "no account of the configuration has the name `acmee`",
        ),
        (&["topup", "later", "1 USD", "--reference", "x"], 2, "the account `later` has no balance, it buys on credit"),
        (&["topup", "acme", "1 EUR", "--reference", "x"], 2, "the account `acme` counts in USD, not in EUR"),
        (&["topup", "acme", "0 USD", "--reference", "x"], 2, "expected more than nothing"),
        (&["topup", "acme", "-1 USD", "--reference", "x"], 2, ""),
        (&["topup", "acme", "1", "--reference", "x"], 2, "expected an amount such as `0.01 USD`, found `1`"),
        (&["topup", "acme", "1 USD"], 2, "--reference"),
        (&["topup", "acme", "1 USD", "--reference", " "], 2, "expected a line of text"),
    ] {
        let (found, _, err) = run(&gateway, args);
        assert!(found == code && err.contains(says), "{args:?}: {found} {err}");
    }
    // The gateway knows its accounts, whoever orders it without a configuration.
    let bare = |amount: &str, account: &str| {
        let args = ["ledger", "topup", account, amount, "--reference", "x", "--ledger", "tollgate.sqlite"];
        tollgate(gateway.dir.path(), &args)
    };
    for (amount, account, says) in [
        ("1 USD", "nobody", "no account of the configuration has the name `nobody`"),
        ("1 USD", "later", "it buys on credit"),
        ("1 EUR", "acme", "counts in USD, not in EUR"),
    ] {
        let (code, _, err) = bare(amount, account);
        assert!(code == 1 && err.contains(says), "{account}: {code} {err}");
    }
    assert_eq!(bare("1 USD", "acme").0, 0);
    let (code, _, err) = topup(&gateway, "2 USD", "x");
    assert_eq!(code, 1);
    assert!(err.contains("`x` of this account is 1.00 USD paid in, entry 281474976710657"), "{err}");
    let (_, dir) = gateway.stop();
    assert_eq!(entries(dir.path()).len(), 1);
    let args = ["ledger", "topup", "acme", "1 USD", "--reference", "y", "--ledger", "tollgate.sqlite"];
    let (code, _, err) = tollgate(dir.path(), &args);
    assert!(code == 1 && err.contains("name it with -c"), "{code} {err}");
}
