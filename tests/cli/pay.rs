//! `tollgate pay`

use std::fs;
use std::io::Write as _;

use serde_json::Value;
use tollgate::wire::jwk::signing_key_json;

use crate::support::gateway::tollgate;
use crate::support::*;

/// A gateway before a scripted origin, and an agent whose key is in the gateway's directory.
struct Shop {
    origin: Origin,
    agent: Agent,
    gateway: Gateway,
}

impl Shop {
    fn open(more: &str) -> Shop {
        Shop::before(Origin::start(), more)
    }

    fn before(origin: Origin, more: &str) -> Shop {
        let agent = Agent::start();
        let gateway = Gateway::start(&site_toml(&origin, &agent, more));
        fs::write(gateway.dir.path().join("agent.jwk"), signing_key_json(&agent.key)).unwrap();
        Shop { origin, agent, gateway }
    }

    /// Requests a path as the agent.
    fn pay(&self, args: &[&str], path: &str) -> (i32, String, String) {
        let paying = [&["--key", "agent.jwk", "--agent", &self.agent.url], args].concat();
        self.look(&paying, path)
    }

    /// Requests a path as nobody.
    fn look(&self, args: &[&str], path: &str) -> (i32, String, String) {
        let url = format!("http://{}{path}", self.gateway.addr);
        tollgate(self.gateway.dir.path(), &[&["pay"], args, &[url.as_str()]].concat())
    }

    /// Closes; the rows of the books.
    fn rows(self) -> Vec<Value> {
        let (status, dir) = self.gateway.stop();
        assert!(status.success());
        let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--json"]);
        assert_eq!(code, 0, "{err}");
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn a_page_is_bought_once() {
    let shop = Shop::open("");
    let (code, out, err) = shop.pay(&[], "/paid/page?q=1");
    assert_eq!((code, out.as_str()), (0, "content of /paid/page?q=1"), "{err}");
    for part in ["offer", "0.01 USD", "200 OK", "charged 0.01 USD"] {
        assert!(err.contains(part), "{err}");
    }
    assert!(!err.contains("signed text"), "{err}");
    let rows = shop.rows();
    assert_eq!((rows.len(), &rows[0]["amount"], &rows[0]["agent"].is_string()), (1, &"0.01".into(), &true));
}

#[test]
fn what_is_free_costs_nothing_and_needs_no_key() {
    let shop = Shop::open("");
    for (code, out, err) in [shop.look(&["-q"], "/free"), shop.pay(&["-q"], "/free")] {
        assert_eq!((code, out.as_str(), err.as_str()), (0, "content of /free", ""));
    }
    assert_eq!(shop.rows().len(), 0);
}

#[test]
fn over_budget_nothing_is_paid() {
    let shop = Shop::open("[[routes]]\npath = \"/dear/*\"\nprice = \"0.50 USD\"\n");
    let (code, out, err) = shop.pay(&[], "/dear/page");
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(err.contains("error: the offer asks 0.50 USD, the budget is 0.10 USD"), "{err}");
    assert_eq!(shop.pay(&["--max", "0.001 USD"], "/paid/page").0, 4);
    assert_eq!(shop.pay(&["--max", "5 EUR"], "/paid/page").0, 4);
    assert_eq!(shop.origin.calls(), 0);
    let (code, out, err) = shop.pay(&["--max", "5 EUR", "--max", "0.50 USD"], "/dear/page");
    assert_eq!((code, out.as_str()), (0, "content of /dear/page"), "{err}");
    assert_eq!(shop.rows().len(), 1);
}

#[test]
fn a_dry_run_shows_the_offer_and_pays_nothing() {
    let shop = Shop::open("");
    for (code, out, err) in [shop.look(&["--dry-run"], "/paid/page"), shop.pay(&["--dry-run"], "/paid/page")] {
        assert_eq!((code, out.as_str()), (0, ""));
        assert!(err.contains("0.01 USD") && err.contains("nothing paid"), "{err}");
    }
    let (code, out, _) = shop.look(&["--dry-run", "--json"], "/paid/page");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["status"], &report["offer"]["price"]), (0, &402.into(), &"0.01 USD".into()));
    assert_eq!((&report["payment"], &report["error"]), (&Value::Null, &Value::Null));
    assert_eq!((shop.origin.calls(), shop.agent.directory.calls()), (0, 0));
    assert_eq!(shop.rows().len(), 0);
}

#[test]
fn without_a_key_the_price_is_told() {
    let shop = Shop::open("");
    let (code, out, err) = shop.look(&[], "/paid/page");
    assert!(code == 4 && out.is_empty() && err.contains("this costs 0.01 USD; pay with --key"), "{err}");
}

#[test]
fn json_tells_all_and_the_body_goes_to_a_file() {
    let shop = Shop::open("");
    let (code, out, err) = shop.pay(&["--json", "-o", "page"], "/paid/page");
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["status"], 200);
    assert_eq!(report["bytes"], "content of /paid/page".len());
    assert_eq!(report["payment"]["id"], report["offer"]["id"]);
    assert_eq!(report["receipt"]["id"], report["offer"]["id"]);
    assert!(report["receipt"]["timestamp"].is_u64());
    assert_eq!(fs::read_to_string(shop.gateway.dir.path().join("page")).unwrap(), "content of /paid/page");
    let (code, out, _) = shop.pay(&["--json", "--max", "0.001 USD"], "/paid/page");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["status"], &report["payment"]), (4, &402.into(), &Value::Null));
    assert!(report["error"].as_str().unwrap().contains("the budget is"), "{report}");
}

#[test]
fn the_request_is_the_one_that_was_asked_for() {
    let shop = Shop::open("");
    fs::write(shop.gateway.dir.path().join("body"), "a=1&b=2").unwrap();
    let (code, out, err) = shop.pay(&["-v", "-i", "-d", "@body", "-H", "X-One: 1", "-H", "X-One: 2"], "/paid/form");
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("HTTP/1.1 200 OK\r\n") && out.ends_with("\r\n\r\ncontent of /paid/form"), "{out}");
    assert!(err.contains("*   \"@method\": POST\n") && err.contains("> signature-input: sig1=("), "{err}");
    let seen = shop.origin.last();
    assert_eq!((seen.line.as_str(), seen.body.as_slice()), ("POST /paid/form HTTP/1.1", &b"a=1&b=2"[..]));
    assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(seen.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-one")).count(), 2);
    let (code, out, _) = shop.pay(&["-X", "HEAD", "-i"], "/paid/page");
    assert!(code == 0 && out.contains("\r\npayment-response: ") && out.ends_with("\r\n\r\n"), "{out}");
    assert_eq!(shop.pay(&["-X", "PUT", "-d", "x"], "/free").0, 0);
    assert_eq!(shop.origin.last().line, "PUT /free HTTP/1.1");
}

#[test]
fn each_end_has_its_exit_code() {
    let origin = Origin::scripted(|seen, socket| {
        let status = seen.path().rsplit('/').next().unwrap_or("200");
        write!(socket, "HTTP/1.1 {status} Whatever\r\nContent-Length: 4\r\n\r\nbody").is_ok()
    });
    let shop = Shop::before(origin, "");
    for (status, expect) in [(200, 0), (302, 0), (404, 5), (410, 5), (403, 4), (500, 1), (503, 1)] {
        let (code, out, err) = shop.pay(&[], &format!("/paid/{status}"));
        assert_eq!((code, out.as_str()), (expect, "body"), "{status}: {err}");
        assert_eq!(err.contains("nothing charged"), status != 200, "{status}: {err}");
    }
    assert_eq!(shop.rows().len(), 1);
}

#[test]
fn a_stranger_is_refused_and_told_why() {
    let (shop, stranger) = (Shop::open(""), Agent::start());
    fs::write(shop.gateway.dir.path().join("stranger.jwk"), signing_key_json(&stranger.key)).unwrap();
    let (code, out, err) = shop.look(&["--key", "stranger.jwk", "--agent", &stranger.url], "/paid/page");
    assert_eq!(code, 4, "{err}");
    assert!(out.contains("registrationUrl") && err.contains("signature_agent_unknown"), "{out}{err}");
}

#[test]
fn a_body_that_breaks_off_is_a_failure() {
    let origin = Origin::scripted(|_, socket| {
        let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        false
    });
    let shop = Shop::before(origin, "");
    let (code, out, err) = shop.pay(&[], "/paid/page");
    assert_eq!((code, out.as_str()), (1, "half"));
    assert!(err.contains("the body is incomplete"), "{err}");
}

#[test]
fn nobody_there_is_3() {
    let dir = tempfile::tempdir().unwrap();
    // Port 1 of this machine: nothing listens there.
    let (code, out, err) = tollgate(dir.path(), &["pay", "http://127.0.0.1:1/"]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("http://127.0.0.1:1 can't be reached"), "{err}");
    let (code, out, _) = tollgate(dir.path(), &["pay", "--json", "http://127.0.0.1:1/"]);
    assert_eq!(code, 3);
    assert!(serde_json::from_str::<Value>(&out).unwrap()["error"].is_string());
}

#[test]
fn a_server_that_talks_nonsense_pays_nothing_and_ends_clearly() {
    for (answer, expect, said) in [
        ("HTTP/1.1 402 Pay\r\nContent-Length: 2\r\n\r\n{}", 4, "carries no offer"),
        (
            "HTTP/1.1 402 Pay\r\nContent-Length: 35\r\n\r\n{\"accepts\":[{\"scheme\":\"deferred\"}]}",
            4,
            "`network` is missing",
        ),
        ("HTTP/1.1 402 Pay\r\nContent-Length: 99\r\n\r\n{", 4, "the body can't be read"),
        ("SSH-2.0-OpenSSH\r\n", 1, "the connection broke"),
        ("", 1, "the connection broke"),
    ] {
        let origin = Origin::scripted(move |_, socket| {
            let _ = socket.write_all(answer.as_bytes());
            false
        });
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("k"), signing_key_json(&ed25519_dalek::SigningKey::from_bytes(&[7; 32]))).unwrap();
        let url = format!("http://{}/", origin.addr);
        let (code, out, err) = tollgate(dir.path(), &["pay", "--key", "k", "--agent", "https://a.example", &url]);
        assert_eq!((code, out.as_str(), origin.calls()), (expect, "", 1), "{answer:?}: {err}");
        assert!(err.contains(said), "{answer:?}: {err}");
    }
}

#[test]
fn a_lost_answer_is_asked_for_with_the_same_payment() {
    // Offers, then drops the first signed request, then says that the payment was used.
    let offer = r#"{"accepts":[{"scheme":"deferred","network":"n","extras":{"id":"one","price":"0.01 USD"}}]}"#;
    let origin = Origin::scripted(move |seen, socket| {
        let reason = match (seen.has("payment"), seen.connection) {
            (false, _) => "payment_required",
            (true, 1) => return false,
            (true, _) => "already_used\r\nTollgate-Receipt: entry",
        };
        let length = offer.len();
        write!(socket, "HTTP/1.1 402 Pay\r\nTollgate-Reason: {reason}\r\nContent-Length: {length}\r\n\r\n{offer}")
            .is_ok()
    });
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("k"), signing_key_json(&ed25519_dalek::SigningKey::from_bytes(&[7; 32]))).unwrap();
    let url = format!("http://{}/", origin.addr);
    let (code, out, err) = tollgate(dir.path(), &["pay", "--key", "k", "--agent", "https://a.example", &url]);
    assert_eq!((code, out.as_str()), (4, offer), "{err}");
    assert!(err.contains("the same payment goes out again") && err.contains("charged once, as entry"), "{err}");
    let seen = origin.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[1].header("payment"), seen[2].header("payment"));
    assert_eq!(seen[1].header("signature"), seen[2].header("signature"));
}

#[test]
fn an_output_that_cannot_be_written_is_found_before_anything_is_paid() {
    let shop = Shop::open("[[routes]]\npath = \"/dear/*\"\nprice = \"0.50 USD\"\n");
    let (code, out, err) = shop.pay(&["-o", "no/where"], "/paid/page");
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("no/where can't be written"), "{err}");
    assert_eq!(shop.origin.calls(), 0);
    // What a request does not fill stays as it was.
    let (dir, kept) = (shop.gateway.dir.path().to_owned(), shop.gateway.dir.path().join("kept"));
    fs::write(&kept, "what was there, which is longer than a page").unwrap();
    assert_eq!(shop.pay(&["-o", "kept"], "/dear/page").0, 4);
    assert_eq!(shop.pay(&["-o", "new"], "/dear/page").0, 4);
    assert_eq!(fs::read_to_string(&kept).unwrap(), "what was there, which is longer than a page");
    assert!(!dir.join("new").exists());
    assert_eq!(shop.pay(&["-o", "kept"], "/paid/page").0, 0);
    assert_eq!(fs::read_to_string(&kept).unwrap(), "content of /paid/page");
    assert_eq!(shop.pay(&["-o", "/dev/null"], "/free").0, 0);
    assert_eq!(shop.rows().len(), 1);
}

#[test]
fn a_request_that_may_not_take_longer_ends_and_says_what_is_open() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let (code, out, err) = tollgate(dir.path(), &["pay", "--timeout", "1", &url]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("no end within 1 s; nothing was paid"), "{err}");

    // Offers, and answers nothing to what is paid.
    let offer = r#"{"accepts":[{"scheme":"deferred","network":"n","extras":{"id":"one","price":"0.01 USD"}}]}"#;
    let origin = Origin::scripted(move |seen, socket| {
        if seen.has("payment") {
            return std::io::Read::read(socket, &mut [0; 1]).is_err();
        }
        write!(socket, "HTTP/1.1 402 Pay\r\nContent-Length: {}\r\n\r\n{offer}", offer.len()).is_ok()
    });
    fs::write(dir.path().join("k"), signing_key_json(&ed25519_dalek::SigningKey::from_bytes(&[7; 32]))).unwrap();
    let url = format!("http://{}/", origin.addr);
    let args = ["pay", "--timeout", "1", "--key", "k", "--agent", "https://a.example", &url];
    let (code, _, err) = tollgate(dir.path(), &args);
    assert_eq!(code, 1);
    assert!(err.contains("no end within 1 s; 0.01 USD may have been charged"), "{err}");
}

#[test]
fn letters_outside_ascii_are_encoded_in_a_path_and_refused_in_a_host() {
    let shop = Shop::open("");
    let (code, out, err) = shop.pay(&[], "/paid/größe?q=日&x=%20");
    let path = "/paid/gr%C3%B6%C3%9Fe?q=%E6%97%A5&x=%20";
    assert_eq!((code, out.as_str()), (0, &*format!("content of {path}")), "{err}");
    assert_eq!(shop.origin.last().path(), path);
    let probe = format!("http://{}/paid/größe", shop.gateway.addr);
    let (_, out, err) = tollgate(shop.gateway.dir.path(), &["probe", &probe]);
    assert!(out.contains("402") && err.is_empty(), "{out}{err}");
    for command in ["pay", "probe"] {
        let (code, _, err) = tollgate(shop.gateway.dir.path(), &[command, "https://größe.example/a"]);
        assert!(
            code == 2 && err.contains("the host must be in ASCII: write a name with other letters as `xn--…`"),
            "{err}"
        );
    }
}
