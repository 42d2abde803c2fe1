//! The fuzz targets on stable: bytes near good ones and random ones, for a moment each; with `TOLLGATE_TEST_LONG` for
//! minutes.

#[allow(dead_code)]
#[path = "support/random.rs"]
mod random;
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;
use std::time::{Duration, Instant};

use random::{Random, is_long};
use tollgate::ledger::evidence::Evidence;
use tollgate::ledger::outcomes;
use tollgate::ledger::store::{Delivery, Outcome};
use tollgate::payment::secrets::Secrets;

/// Shows the input of a run that panics.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("input: b\"{}\"", self.0.escape_ascii());
        }
    }
}

fn run(target: fn(&[u8]), seeds: &[Vec<u8>], words: &[&str]) {
    assert!(!seeds.is_empty());
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let mut random = Random::new(name.bytes().fold(3, |n, b| n * 131 % 1_000_003 + u64::from(b)));
    let end = Instant::now() + if is_long() { Duration::from_secs(120) } else { Duration::from_millis(700) };
    let mut tries = 0_u64;
    for seed in seeds {
        let _shown = Shown(seed);
        target(seed);
    }
    while Instant::now() < end {
        for _ in 0..50 {
            let mut data = random.pick(seeds).clone();
            for _ in 0..=random.below(4) {
                mutate(&mut data, &mut random, seeds, words);
            }
            let _shown = Shown(&data);
            target(&data);
            tries += 1;
        }
    }
    eprintln!("{name}: {tries} inputs");
    assert!(tries > 100, "{tries} inputs only");
}

fn mutate(data: &mut Vec<u8>, random: &mut Random, seeds: &[Vec<u8>], words: &[&str]) {
    let at = random.below(data.len() + 1);
    let end = (at + 1 + random.below(8)).min(data.len());
    match random.below(8) {
        0 if at < data.len() => data[at] ^= 1 << random.below(8),
        1 if at < data.len() => data[at] = *random.pick(b"\0\n\r \"%;:/\\.,=()\xff09azAZ"),
        2 => data.insert(at, random.next() as u8),
        3 => _ = data.drain(at..end),
        4 => {
            let copy = data[at..end].to_vec();
            data.splice(at..at, copy);
        }
        5 | 6 if !words.is_empty() => _ = data.splice(at..at, random.pick(words).bytes()),
        _ => {
            let other = random.pick(seeds);
            let from = random.below(other.len() + 1);
            let to = (from + random.below(40)).min(other.len());
            data.splice(at..end.max(at), other[from..to].iter().copied());
        }
    }
    data.truncate(20_000);
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

fn files(folder: &str, extension: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == extension));
    paths.sort();
    paths.iter().map(|p| std::fs::read(p).unwrap()).collect()
}

/// The golden vectors, from their first header line.
fn vectors() -> Vec<Vec<u8>> {
    let request = |file: Vec<u8>| {
        let text = String::from_utf8(file).unwrap();
        text.split_once("\n\n").unwrap().1.as_bytes().to_vec()
    };
    files("tests/wire/signature", "txt").into_iter().map(request).collect()
}

#[test]
fn signature() {
    let words =
        ["\"@path\" ", "\"signature-agent\";key=\"a\"", ";created=", ";keyid=\"k\"", ", b=(", ":AA==:", ";sf", "\n"];
    run(targets::signature, &vectors(), &words);
}

#[test]
fn payment() {
    let seeds =
        [r#"scheme="deferred", network="tollgate:deferred", id="abc""#, "scheme=a, network=b, id=c;d=1, e=(f g);h"];
    run(targets::payment, &texts(&seeds), &["scheme=", "id=", ", ", "\"", "?1", ":AA==:", "@1", "1.5"]);
}

#[test]
fn payment_fields() {
    let json = "eyJ4NDAyVmVyc2lvbiI6MiwiYWNjZXB0ZWQiOnsic2NoZW1lIjoiZGVmZXJyZWQifX0=";
    let mut seeds = vectors();
    for name in ["payment-signature", "X-PAYMENT", "crawler-max-price", "Payment"] {
        seeds.push(format!("{name}: {json}\r\n").into_bytes());
        seeds.push(format!("a: b\r\n{name}: USD 1\r\n").into_bytes());
    }
    seeds.push(b"crawler-exact-price: usd 0.010\r\n".to_vec());
    let commitment = r#"{"x402Version":2,"payload":{"amount":"5","asset":"USD"},"accepted":{"scheme":"batch-settlement","network":"a-b:c","amount":"5","asset":"USD","payTo":"m","maxTimeoutSeconds":30}}"#;
    let commitment = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, commitment);
    seeds.push(format!("payment-signature: {commitment}\r\n").into_bytes());
    run(targets::payment_fields, &seeds, &["payment: ", "x-payment: ", "\r\n", "crawler-exact-price:"]);
}

/// RFC 7638 §3.1 and RFC 7515 A.3.
const RSA_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
const EC_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const EC_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

#[test]
fn directory() {
    let seeds = [
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","use":"sig","nbf":1,"exp":9}]}"#,
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","key_ops":["verify"],"alg":"EdDSA"},{"kty":"RSA"},7]}"#,
    ];
    let rsa = format!(r#"{{"keys":[{{"kty":"RSA","n":"{RSA_N}","e":"AQAB","alg":"PS512"}}]}}"#);
    let ec = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{EC_X}","y":"{EC_Y}","use":"sig"}}]}}"#);
    let words = ["{", "}", "[", "]", "null", "1e999", "\"d\":\"AA\",", "\"keys\":", "\\u0000", ",", "P-384", "\"RSA\""];
    let seeds = [&seeds[..], &[&rsa, &ec]].concat();
    run(targets::directory, &texts(&seeds), &words);
}

#[test]
fn agent_url() {
    let seeds =
        ["https://signer.example.com", "http://127.0.0.1:9000/", "https://[2001:db8::1]:443", "HTTPS://A.b:65535"];
    run(
        targets::agent_url,
        &texts(&seeds),
        &["https://", "[::ffff:127.0.0.1]", "0x7f", "xn--", "@", ":443", "%2e", "。"],
    );
}

#[test]
fn amount() {
    let seeds = ["0.01 USD", "1000000 JPY", "0.000001 USD", "12.345 KWD", "9223372036854.775807 USD"];
    run(targets::amount, &texts(&seeds), &["0", ".", " ", "USD", "e9", "-", "99999999999999999999"]);
}

#[test]
fn target() {
    let seeds = [
        "/paid/page?q=1\na.example",
        "/%70aid/%7e%2D\nA.example:443",
        "http://case.example/Case/x\ncase.example",
        "https://a.example:8402/\na.example:8402",
        "/a/b.c/..d/%C3%A9\n[::1]:80",
        "*\na.example",
    ];
    let words = [
        "/",
        "//",
        "/paid",
        "/PAID",
        "/case",
        "/./",
        "/../",
        "%2e",
        "%2E",
        "%2f",
        "%5C",
        "%25",
        "%2570",
        "%00",
        "%70",
        ";",
        "?",
        "#",
        "%c0%af",
        "\\",
        "@",
        ":",
        "case.example",
        ".",
        "%",
        "\n",
    ];
    run(targets::target, &texts(&seeds), &words);
}

#[test]
fn sealed_id() {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/sealed_id.txt")).unwrap();
    assert!(file.ends_with(&format!("\n\n{}\n", targets::GOLDEN_ID)));
    let seeds = [targets::GOLDEN_ID.to_owned(), "A".repeat(64), format!("{}=", &targets::GOLDEN_ID[..63])];
    run(targets::sealed_id, &seeds.map(String::into_bytes), &["A", "_", "-", "=", "/", "+"]);
}

#[test]
fn template() {
    let template = tollgate::payment::terms::Template {
        ttl: 300,
        class: "public".into(),
        scheme: "deferred".into(),
        network: "n".into(),
        asset: "USD".into(),
        decimals: 2,
        pay_to: "m".into(),
        terms_url: String::new(),
    };
    run(targets::template, &[template.to_bytes()], &["\0\0\0\0", "\0\0\0\u{1}1"]);
}

#[test]
fn config() {
    let seeds = [files("config", "toml"), files("tests/config", "toml")].concat();
    let words = [
        "[[routes]]\n",
        "[origin]\n",
        "[server.limits]\n",
        "path = \"/*\"\n",
        "price = \"1 USD\"\n",
        "= 1.5",
        "\"",
        "{",
        "]",
    ];
    run(targets::config, &seeds, &words);
}

#[test]
fn secret_file() {
    run(targets::secret_file, &[Secrets::new_file([7; 32]).into_bytes()], &["{", "]", "\"", "1", "null", "revoked"]);
}

#[test]
fn ledger() {
    let evidence = Evidence {
        sealed_id: Some([1; 48]),
        template_digest: None,
        signature_base: b"\"@path\": /p".to_vec(),
        signature: vec![2; 64],
        thumbprint: "kPrK".into(),
        directory_digest: [3; 32],
        verified_ms: 1_700_000_000_000,
        method: "GET".into(),
        target: "https://a.example/p".into(),
        origin_status: 200,
    };
    let outcome = |n| Outcome { n, delivery: Delivery::ClientLeft, void: false, ms: 7, bytes: 9 };
    let packed = outcomes::encode(&[outcome((1 << 48) + 1), outcome((1 << 48) + 3)]).0.unwrap();
    run(targets::ledger, &[evidence.encode(), packed], &["\u{1}", "\0\0\0\0", "\0\0\0\u{7f}"]);
}

#[test]
fn x402_payload() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/x402/signed.json");
    let signed: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut seeds: Vec<Vec<u8>> = signed.iter().map(|v| v["payload"].to_string().into_bytes()).collect();
    let long = signed[0]["payload"].to_string().replace("\"0xdc53", &format!("\"0x{}", "ab".repeat(40)));
    seeds.push(long.into_bytes());
    seeds.push([vec![1], vec![0; 64], vec![0x80, 1, 0, 0]].concat());
    let words = ["{", "}", "\"a\":1,", "null", "\"value\":\"1\",", "0x", "\"transaction\":\"AA==\",", "1e999", "[[[["];
    run(targets::x402_payload, &seeds, &words);
}

#[test]
fn facilitator() {
    let seeds = [
        r#"{"success":true,"transaction":"0xab","network":"eip155:8453","payer":"0x1","amount":"1"}"#,
        r#"{"success":false,"errorReason":"settlement_pending","transaction":"0xab","network":"base"}"#,
        r#"{"isValid":false,"invalidReason":"insufficient_funds","payer":null}"#,
        r#"{"kinds":[{"x402Version":2,"scheme":"exact","network":"solana:a","extra":{"feePayer":"F"}}]}"#,
        "eyJzdWNjZXNzIjp0cnVlLCJ0cmFuc2FjdGlvbiI6IjB4YWIiLCJuZXR3b3JrIjoiYmFzZSJ9",
    ];
    run(targets::facilitator, &texts(&seeds), &["true", "false", "null", "\"success\":true,", "{", "}", "\"", "1"]);
}

#[test]
fn evm() {
    let max = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    let seeds =
        ["0x036CbD53842c5426634e7929541eC2318f3dCF7e", "10000", "0", max, "eip155:84532", "solana:EtWTRABZaYq6"];
    run(targets::evm, &texts(&seeds), &["0", "0x", "9", "F", ":", "eip155:", "-"]);
}

#[test]
fn origin_amount() {
    let seeds = [
        "Settlement-Overrides: {\"amount\":\"4000\"}",
        "PAYMENT-SETTLEMENT: {\"amount\":\"40.5%\"}",
        "Settlement-Overrides: {\"amount\":\"$0.004\"}\nPAYMENT-SETTLEMENT: {\"amount\":\"$0.004\"}",
    ];
    run(targets::origin_amount, &texts(&seeds), &["0", "9", "99999999", "%", "$", ".", "-", "\"", "{", "}", ":", "\n"]);
}

#[test]
fn mcp() {
    let seeds = [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":1.50},"_meta":{"t":1,"x402/payment":{"a":[1]},"z":2}}}"#,
        r#"{"jsonrpc":"2.0","id":"a","method":"resources/read","params":{"uri":"memo://a","_meta":{"x402/payment":null}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"_meta":{"x402/payment-response":1,"t":2},"isError":false}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"[{"method":"notifications/initialized"},{"id":2,"error":{"code":-32600}}]"#,
        ": hi\r\n\r\nid: 1\r\ndata: {\r\ndata: }\r\n\r\ndata\n\ndata: b\r\r",
        "https://a.example:8443/x/%C3%BC?q=1",
    ];
    let words = [
        "{",
        "}",
        "[",
        "]",
        "\"",
        ",",
        ":",
        "\\u006d",
        "\"method\":\"tools/call\",",
        "\"name\":\"b\",",
        "\"NAME\":1,",
        "\"_meta\":{},",
        "\"x402\\/payment\":{},",
        "\"id\":1,",
        "\"result\":{},",
        "\r",
        "\n",
        "\r\n\r\n",
        "data:",
        "1e999",
    ];
    run(targets::mcp, &texts(&seeds), &words);
}
