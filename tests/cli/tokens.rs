//! `tollgate pay --wallet`, `run --sandbox`: no chain, no network.

use std::fs;
use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tollgate::wire::jwk::signing_key_json;

use crate::support::gateway::tollgate;
use crate::support::wallet::{PAY_TO, USDC};
use crate::support::*;

/// A gateway in the sandbox that sells `/paid/*` for tokens, `/both/*` and `/small/*` for tokens or on credit; a wallet.
struct Shop {
    origin: Origin,
    agent: Agent,
    gateway: Gateway,
    address: String,
}

fn shop_toml(origin: &Origin, agent: &Agent) -> String {
    let more = format!(
        r#"accept = ["exact"]
[[routes]]
path = "/both/*"
price = "0.01 USD"
accept = ["exact", "deferred"]
[[routes]]
path = "/small/*"
price = "0.001 USD"
accept = ["exact", "deferred"]
[[routes]]
path = "/dear/*"
price = "0.50 USD"
accept = ["exact"]
[exact]
sandbox = true
[[exact.assets]]
network = "base-sepolia"
pay_to = "{PAY_TO}"
"#
    );
    site_toml(origin, agent, &more)
}

impl Shop {
    fn open() -> Shop {
        let (origin, agent) = (Origin::start(), Agent::start());
        let gateway = Gateway::start(&shop_toml(&origin, &agent));
        let dir = gateway.dir.path();
        fs::write(dir.join("agent.jwk"), signing_key_json(&agent.key)).unwrap();
        let address = new_wallet(dir);
        Shop { origin, agent, gateway, address }
    }

    fn tollgate(&self, args: &[&str]) -> (i32, String, String) {
        tollgate(self.gateway.dir.path(), args)
    }

    fn pay(&self, args: &[&str], path: &str) -> (i32, String, String) {
        let url = format!("http://{}{path}", self.gateway.addr);
        self.tollgate(&[&["pay"], args, &[url.as_str()]].concat())
    }

    /// The captures, newest first.
    fn rows(&self) -> Vec<Value> {
        let (code, out, err) = self.tollgate(&["ledger", "list", "--json"]);
        assert_eq!(code, 0, "{err}");
        let rows = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.filter(|row| row["kind"] == "capture").collect()
    }
}

/// Makes `wallet.key`; its address.
fn new_wallet(dir: &std::path::Path) -> String {
    let (code, out, err) = tollgate(dir, &["keygen", "--wallet"]);
    assert_eq!(code, 0, "{err}");
    out.trim().strip_prefix("address  ").expect("no address").to_owned()
}

const WALLET: [&str; 2] = ["--wallet", "wallet.key"];

#[test]
fn a_page_is_bought_with_a_token_and_the_books_have_it() {
    let shop = Shop::open();
    assert!(shop.gateway.log().contains("SANDBOX: token payments are settled on paper"), "{}", shop.gateway.log());
    let (code, out, err) = shop.pay(&WALLET, "/paid/page?q=1");
    assert_eq!((code, out.as_str()), (0, "content of /paid/page?q=1"), "{err}");
    for part in [
        "0.01 USD by exact in USDC on eip155:84532",
        &format!("0.01 USD from {}", shop.address),
        "charged 0.01 USD in transaction 0x",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let (code, out, err) = shop.pay(&[&WALLET[..], &["--json"]].concat(), "/paid/json");
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["offer"]["symbol"], &report["offer"]["amount"]), (&json!("USDC"), &json!("10000")));
    assert_eq!((&report["payment"]["payer"], &report["payment"]["scheme"]), (&json!(shop.address), &json!("exact")));
    assert_eq!((&report["receipt"]["success"], &report["error"]), (&json!(true), &Value::Null));
    let rows = shop.rows();
    assert_eq!((rows.len(), &rows[0]["amount"], &rows[0]["symbol"]), (2, &json!("0.01"), &json!("USDC")));
    assert_eq!(rows[0]["agent"], format!("eip155:84532:{}", shop.address.to_lowercase()));
    let (_, table, _) = shop.tollgate(&["ledger", "list"]);
    assert!(table.contains("  0.01 USDC  wallets "), "{table}");
    let (code, audit, _) = shop.tollgate(&["ledger", "audit"]);
    assert!(code == 0 && audit.contains("charged 0.02 USDC (eip155:84532/erc20:0x036c"), "{audit}");
}

#[test]
fn what_was_settled_is_shown_with_its_proof() {
    let shop = Shop::open();
    assert_eq!(shop.pay(&WALLET, "/paid/page").0, 0);
    let row = shop.rows().remove(0);
    let n = row["n"].as_str().unwrap();
    let (code, out, err) = shop.tollgate(&["ledger", "show", n]);
    assert_eq!(code, 0, "{err}");
    for part in [
        "0.01 USDC",
        "the transfer is signed by 0x",
        "transaction",
        "validBefore",
        "\"isValid\":true",
        "\"success\":true",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (code, out, _) = shop.tollgate(&["ledger", "show", n, "--json"]);
    let shown: Value = serde_json::from_str(&out).unwrap();
    let evidence = &shown["evidence"];
    assert_eq!((code, &evidence["verifies"], &evidence["verified"]["isValid"]), (0, &json!(true), &json!(true)));
    assert_eq!(evidence["request"]["paymentRequirements"]["payTo"], PAY_TO);
    assert_eq!(evidence["receipt"]["transaction"], evidence["settled"]["transaction"]);
    // The intent that came before it has no more than what was signed and verified.
    let intent = (n.parse::<i64>().unwrap() - 1).to_string();
    let (code, out, _) = shop.tollgate(&["ledger", "show", &intent]);
    assert!(code == 0 && out.contains("intent") && out.contains("the transfer is signed by 0x"), "{out}");
    assert!(!out.contains("/settle said"), "{out}");
    let offer = evidence["offer_id"].as_str().unwrap();
    assert_eq!(shop.tollgate(&["ledger", "show", row["key"].as_str().unwrap()]).0, 0);
    assert_eq!(offer.len(), 64);
}

#[test]
fn over_budget_and_by_a_dry_run_nothing_is_signed() {
    let shop = Shop::open();
    let (code, out, err) = shop.pay(&WALLET, "/dear/page");
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(err.contains("error: the offer asks 0.50 USD, the budget is 0.10 USD"), "{err}");
    assert_eq!(shop.pay(&[&WALLET[..], &["--max", "0.009 USD"]].concat(), "/paid/page").0, 4);
    assert_eq!(shop.pay(&[&WALLET[..], &["--max", "5 EUR"]].concat(), "/paid/page").0, 4);
    let (code, _, err) = shop.pay(&[&WALLET[..], &["--dry-run"]].concat(), "/paid/page");
    assert!(code == 0 && err.contains("by exact in USDC") && err.contains("within the budget"), "{err}");
    let (code, _, err) = shop.pay(&[], "/paid/page");
    assert!(code == 4 && err.contains("this costs 0.01 USD; pay with --wallet FILE"), "{err}");
    assert_eq!((shop.origin.calls(), shop.rows().len()), (0, 0));
}

#[test]
fn each_pays_by_what_it_has() {
    let shop = Shop::open();
    let key = ["--key", "agent.jwk", "--agent", &shop.agent.url];
    // The price of /small/ is no whole cents: its deferred offer stands only where signers look.
    for (means, path, scheme) in [
        (&key[..], "/both/a", "deferred"),
        (&key, "/small/a", "deferred"),
        (&WALLET, "/both/a", "exact"),
        (&WALLET, "/small/a", "exact"),
        (&[&key[..], &WALLET].concat(), "/both/a", "exact"),
    ] {
        let (code, _, err) = shop.pay(means, path);
        assert_eq!(code, 0, "{path} by {scheme}: {err}");
        assert_eq!(shop.rows()[0]["scheme"], scheme, "{path}");
    }
    let (code, _, err) = shop.pay(&key, "/paid/a");
    assert!(code == 4 && err.contains("takes only `exact`"), "{err}");
    // With an Accept of its own the request stays as it is.
    assert_eq!(shop.pay(&[&key[..], &["-H", "Accept: text/plain"]].concat(), "/both/a").0, 0);
    assert_eq!(shop.origin.last().header("accept"), Some("text/plain"));
}

#[test]
fn a_transfer_buys_once() {
    let shop = Shop::open();
    let (code, _, err) = shop.pay(&[&WALLET[..], &["-v"]].concat(), "/paid/page");
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("TransferWithAuthorization of USDC (0x036C"), "{err}");
    let field = err.lines().find_map(|line| line.strip_prefix("> payment-signature: ")).expect("no field is shown");
    let (code, out, err) = shop.pay(&["-H", &format!("PAYMENT-SIGNATURE: {field}")], "/paid/page");
    assert_eq!(code, 4, "{out}{err}");
    assert!(err.contains("payment_already_used") && !out.contains("content of"), "{out}{err}");
    assert_eq!((shop.rows().len(), shop.origin.calls()), (1, 1));
}

#[test]
fn the_sandbox_is_switched_on_by_an_option_and_never_for_real_money() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let real = shop_toml(&origin, &agent).replace("sandbox = true", "").replace("base-sepolia", "base");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tollgate.toml"), real).unwrap();
    for command in ["run", "check"] {
        let (code, out, err) = tollgate(dir.path(), &[command, "--sandbox"]);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("`--sandbox` settles on paper, and `eip155:8453` is no known test network"), "{err}");
        assert!(!err.contains("no facilitator could settle"), "{err}");
    }
    let paper = shop_toml(&origin, &agent).replace("sandbox = true", "");
    fs::write(dir.path().join("tollgate.toml"), paper).unwrap();
    let (code, out, err) = tollgate(dir.path(), &["check", "--sandbox"]);
    assert!(code == 0 && out.contains("SANDBOX  ON") && out.contains("exact (USDC on eip155:84532)"), "{out}{err}");
    let (code, _, err) = tollgate(dir.path(), &["check"]);
    assert!(code == 2 && err.contains("no facilitator could settle it"), "{err}");
}

#[test]
fn a_wallets_key_is_private_and_read_in_its_forms() {
    use std::os::unix::fs::PermissionsExt as _;
    let shop = Shop::open();
    let path = shop.gateway.dir.path().join("wallet.key");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(shop.tollgate(&["keygen", "--wallet"]).2.contains("--force"));
    let hex = fs::read_to_string(&path).unwrap().trim().to_owned();
    for text in [hex[2..].to_owned(), json!({ "privateKey": hex }).to_string()] {
        fs::write(&path, text).unwrap();
        assert_eq!(shop.pay(&WALLET, "/paid/page").0, 0);
    }
    fs::write(&path, format!("{hex}00")).unwrap();
    let (code, out, err) = shop.pay(&WALLET, "/paid/page");
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("wallet.key is no wallet's private key") && !err.contains(&hex[4..]), "{err}");
}

/// Serves one 402 for everything; with it goes what `lie` makes of an honest offer.
fn liar(lie: impl FnOnce(&mut Value, &mut Value)) -> Origin {
    let mut entry = json!({"scheme": "exact", "network": "eip155:84532", "amount": "10000", "asset": USDC, "payTo": PAY_TO,
        "maxTimeoutSeconds": 300, "extra": {"name": "USDC", "version": "2"}});
    let mut old = json!({"scheme": "exact", "network": "base-sepolia", "maxAmountRequired": "10000", "asset": USDC,
        "resource": "http://a.example/", "description": "", "mimeType": "", "payTo": PAY_TO, "maxTimeoutSeconds": 300,
        "extra": {"name": "USDC", "version": "2"}});
    lie(&mut entry, &mut old);
    let field = STANDARD.encode(json!({"x402Version": 2, "accepts": [entry]}).to_string());
    let body = json!({"x402Version": 1, "accepts": [old]}).to_string();
    let length = body.len();
    Origin::scripted(move |_, socket| {
        write!(socket, "HTTP/1.1 402 Pay\r\nPAYMENT-REQUIRED: {field}\r\nContent-Length: {length}\r\n\r\n{body}")
            .is_ok()
    })
}

#[test]
fn a_lying_offer_is_not_signed() {
    let dir = tempfile::tempdir().unwrap();
    new_wallet(dir.path());
    let pay = |server: &Origin| {
        let url = format!("http://{}/", server.addr);
        tollgate(dir.path(), &["pay", "--wallet", "wallet.key", &url])
    };
    // The honest one is signed, and refused again.
    let server = liar(|_, _| {});
    assert_eq!((pay(&server).0, server.calls()), (4, 2));
    assert!(server.last().has("payment-signature"));
    type Lie = fn(&mut Value, &mut Value);
    let lies: [(Lie, &str); 8] = [
        (|entry, _| entry["amount"] = json!("90000"), "`amount` is not the same"),
        (|_, old| old["payTo"] = json!(USDC), "`payTo` is not the same"),
        (|_, old| old["network"] = json!("base"), "`network` is not the same"),
        (|_, old| old["asset"] = json!(PAY_TO), "`asset` is not the same"),
        (|entry, _| entry["asset"] = json!(PAY_TO), "is no token on eip155:84532 whose worth is known here"),
        (|entry, _| entry["network"] = json!("eip155:8453"), "is no token on eip155:8453"),
        (|entry, _| entry["maxTimeoutSeconds"] = json!(31_536_000), "`maxTimeoutSeconds` must be 1 to 3600"),
        (|entry, _| entry["amount"] = json!("99999999999999999999"), "more than any budget holds"),
    ];
    for (lie, said) in lies {
        let server = liar(lie);
        let (code, _, err) = pay(&server);
        assert_eq!((code, server.calls()), (4, 1), "{said}: {err}");
        assert!(err.contains(said), "{said}: {err}");
    }
}

#[test]
fn a_settlement_that_takes_time_is_asked_for_with_the_same_transfer() {
    let entry = json!({"scheme": "exact", "network": "eip155:84532", "amount": "10000", "asset": USDC, "payTo": PAY_TO,
        "maxTimeoutSeconds": 300});
    let field = STANDARD.encode(json!({"x402Version": 2, "accepts": [entry]}).to_string());
    let server = Origin::scripted(move |seen, socket| {
        let head = match (seen.has("payment-signature"), seen.connection) {
            (false, _) => format!("402 Pay\r\nPAYMENT-REQUIRED: {field}"),
            (true, 1) => "503 Busy\r\nTollgate-Reason: settlement_pending\r\nRetry-After: 0".to_owned(),
            (true, 2) => return false,
            (true, _) => {
                let receipt = json!({"success": true, "transaction": "0xabc", "network": "eip155:84532"});
                format!("200 OK\r\nPAYMENT-RESPONSE: {}", STANDARD.encode(receipt.to_string()))
            }
        };
        write!(socket, "HTTP/1.1 {head}\r\nContent-Length: 2\r\n\r\n{{}}").is_ok()
    });
    let dir = tempfile::tempdir().unwrap();
    new_wallet(dir.path());
    let url = format!("http://{}/", server.addr);
    let (code, out, err) = tollgate(dir.path(), &["pay", "--wallet", "wallet.key", &url]);
    assert_eq!((code, out.as_str()), (0, "{}"), "{err}");
    assert!(err.contains("503 settlement_pending") && err.contains("charged 0.01 USD in transaction 0xabc"), "{err}");
    let seen = server.seen();
    let sent: Vec<_> = seen[1..].iter().map(|seen| seen.header("payment-signature").unwrap()).collect();
    assert!(sent.len() == 3 && sent.iter().all(|field| *field == sent[0]));
}
