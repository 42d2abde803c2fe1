//! `tollgate ledger report` and `tollgate ledger export`

use serde_json::Value;

use crate::support::facilitator::{Behaviour, Facilitator};
use crate::support::gateway::tollgate;
use crate::support::wallet::{Wallet, token_shop_toml};
use crate::support::*;

/// A ledger with two charges on credit, of which one was void (its origin cut the answer off), and three settlements, of
/// which one failed.
fn ledger() -> tempfile::TempDir {
    let origin = Origin::scripted(|seen, socket| {
        use std::io::Write as _;
        let length = if seen.path() == "/credit/cut" { 100 } else { 2 };
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nok").is_ok() && length == 2
    });
    let (agent, facilitator, wallet) = (Agent::start(), Facilitator::start(), Wallet::new());
    let more = format!(
        "[[routes]]\npath = \"/credit/*\"\nprice = \"0.25 USD\"\nname = \"a, \\\"b\\\"\"\n[[accounts]]\nname = \"acme\"\n\
         agents = [\"{}\"]\ncredit = \"10 USD\"\n",
        agent.url
    );
    let gateway = Gateway::start(&token_shop_toml(&origin, &facilitator, &more));
    assert_eq!(agent.buy(gateway.addr, "/credit/a?x=1,2").status, 200);
    for path in ["/paid/a", "/paid/b"] {
        assert_eq!(wallet.buy(gateway.addr, path).status, 200);
    }
    facilitator.next("/settle", Behaviour::Refused("insufficient_funds"));
    assert_eq!(wallet.buy(gateway.addr, "/paid/c").status, 402);
    assert!(agent.buy(gateway.addr, "/credit/cut").truncated);
    let (status, dir) = gateway.stop();
    assert!(status.success());
    dir
}

fn ran(dir: &tempfile::TempDir, args: &[&str]) -> String {
    let (code, out, err) = tollgate(dir.path(), &[&["ledger"], args].concat());
    assert_eq!(code, 0, "{args:?}: {err}");
    out
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn sums_by_anything_are_those_of_the_entries() {
    let dir = ledger();
    let postings = objects(&ran(&dir, &["export", "--format", "jsonl"]));
    let charged = |asset: &str| -> i64 {
        let of_asset = postings.iter().filter(|p| p["asset"] == asset);
        of_asset.map(|p| p["charge_units"].as_str().unwrap().parse::<i64>().unwrap()).sum()
    };
    let usdc = "eip155:84532/erc20:0x036cbd53842c5426634e7929541ec2318f3dcf7e";
    assert_eq!((charged("USD"), charged(usdc)), (250_000, 20_000), "{postings:?}");
    for by in ["day", "account", "agent", "route", "scheme", "status"] {
        let lines = objects(&ran(&dir, &["report", "--by", by, "--json"]));
        for asset in ["USD", usdc] {
            let of_asset = lines.iter().filter(|line| line["asset"] == asset);
            let net: i64 = of_asset.map(|l| l["net_units"].as_str().unwrap().parse::<i64>().unwrap()).sum();
            assert_eq!(net, charged(asset), "by {by}: {lines:?}");
        }
        assert!(lines.iter().all(|line| line["schema"] == "tollgate.report/1" && line["by"] == by));
    }
    let lines = objects(&ran(&dir, &["report", "--by", "status", "--account", "acme", "--json"]));
    let groups: Vec<_> =
        lines.iter().map(|line| (line["group"].as_str().unwrap(), line["net"].as_str().unwrap())).collect();
    assert_eq!(groups, [("captured", "0.50"), ("voided", "-0.25")]);
    let lines = objects(&ran(&dir, &["report", "--by", "account", "--account", "acme", "--json"]));
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert_eq!((&line["group"], &line["net"], &line["captures"]), (&"acme".into(), &"0.25".into(), &2.into()));
    assert_eq!((&line["captured"], &line["voided"]), (&"0.50".into(), &"0.25".into()));
    let shown = ran(&dir, &["report", "--by", "scheme"]);
    assert!(shown.starts_with("all days, days of UTC\n") && shown.contains("0.02 USDC"), "{shown}");
}

#[test]
fn postings_are_whole_in_each_format_and_days_bound_them() {
    let dir = ledger();
    let postings = objects(&ran(&dir, &["export", "--format", "jsonl"]));
    let kinds: Vec<&str> = postings.iter().map(|p| p["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["capture", "intent", "capture", "intent", "capture", "intent", "failed", "capture", "void"]);
    let first = &postings[0];
    assert_eq!(
        (&first["route"], &first["amount"], &first["symbol"]),
        (&"a, \"b\"".into(), &"0.25".into(), &Value::Null)
    );
    assert_eq!((&postings[1]["charge"], &postings[1]["amount"]), (&"0.00".into(), &"0.01".into()));

    let csv = ran(&dir, &["export"]);
    let lines: Vec<&str> = csv.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 1 + postings.len());
    assert!(
        lines[0].starts_with("n,ref,kind,at,book_day,account,") && lines[0].ends_with(",schema,state,reference"),
        "{csv}"
    );
    assert!(lines[1].contains(",\"a, \"\"b\"\"\",deferred,USD,,0.25,250000,0.25,250000,200,GET,\"http://"), "{csv}");

    let metered = objects(&ran(&dir, &["export", "--format", "metered"]));
    assert_eq!(metered.len(), 5);
    assert_eq!(metered[4]["cancel"]["identifier"], metered[3]["identifier"]);
    assert_eq!(
        (&metered[0]["payload"]["customer"], &metered[0]["payload"]["value"]),
        (&"acme".into(), &"250000".into())
    );

    let day = first["book_day"].as_str().unwrap();
    let next = &*day.parse::<jiff::civil::Date>().unwrap().tomorrow().unwrap().to_string();
    assert_eq!(objects(&ran(&dir, &["export", "--format", "jsonl", "--since", day, "--until", next])), postings);
    for outside in [["--since", next], ["--until", day]] as [[&str; 2]; 2] {
        assert_eq!(ran(&dir, &[&["export", "--format", "jsonl"][..], &outside].concat()), "");
        assert_eq!(ran(&dir, &[&["report", "--json"][..], &outside].concat()), "");
    }
    assert_eq!(objects(&ran(&dir, &["export", "--format", "jsonl", "--account", "acme"])).len(), 3);
}

#[test]
fn a_file_is_never_written_over() {
    let dir = ledger();
    let to_file = ["ledger", "export", "-o", "out.csv"];
    let (code, out, err) = tollgate(dir.path(), &to_file);
    assert_eq!((code, &*out), (0, ""), "{err}");
    assert!(err.starts_with("out.csv: 9 entries, all days, days of UTC"), "{err}");
    let written = std::fs::read_to_string(dir.path().join("out.csv")).unwrap();
    assert_eq!(written, ran(&dir, &["export"]));
    let (code, _, err) = tollgate(dir.path(), &to_file);
    assert_eq!(code, 1);
    assert!(err.contains("out.csv can't be made: "), "{err}");
    assert_eq!(std::fs::read_to_string(dir.path().join("out.csv")).unwrap(), written);
}

#[test]
fn books_of_a_sandbox_are_read_by_its_configuration() {
    let origin = Origin::start();
    let toml = format!(
        "[origin]\nurl = \"http://{}\"\n[server]\nlisten = [\"127.0.0.1:0\"]\n[[exact.assets]]\nnetwork = \"base-sepolia\"\n\
         pay_to = \"0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC\"\n[[routes]]\npath = \"/a\"\nprice = \"0.01 USD\"\naccept = [\"exact\"]\n",
        origin.addr
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("shop.toml"), &toml).unwrap();
    let with_sandbox = toml.replace("[[exact.assets]]", "[exact]\nsandbox = true\n[[exact.assets]]");
    let gateway = Gateway::start(&with_sandbox);
    let (_, files) = gateway.stop();
    std::fs::copy(dir.path().join("shop.toml"), files.path().join("shop.toml")).unwrap();
    let (code, out, err) = tollgate(files.path(), &["ledger", "audit", "-c", "shop.toml"]);
    assert_eq!(code, 0, "{out}{err}");
}
