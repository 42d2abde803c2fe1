//! A WebSocket library's server and client with the gateway between them: over plain HTTP and TLS, free and paid.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{private_jwk, wanted};
use crate::support::gateway::tollgate;
use crate::support::tls::Made;
use crate::support::*;

#[test]
fn pypis_websockets_talk_through_the_gateway() {
    let Some(python) = wanted("interop-python", "TOLLGATE_PYTHON") else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/python/tunnel.py");
    let (agent, dir) = (Agent::start(), tempfile::tempdir().unwrap());
    Made::new(&["localhost"]).write(dir.path(), "site");
    let ca = dir.path().join("site.crt");
    let mut peer = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(peer.stdout.take().unwrap());
    let mut port = String::new();
    said.read_line(&mut port).unwrap();
    let toml = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\ncores = 2\ndrain_seconds = 2\n\
         [server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
         [[server.tls.certificates]]\ncert_file = \"site.crt\"\nkey_file = \"site.key\"\n\
         [origin]\nurl = \"http://127.0.0.1:{}\"\n\
         [deferred]\nterms_url = \"https://example.com/terms\"\n\
         [[accounts]]\nname = \"acme\"\nagents = [\"{}\"]\ncredit = \"1000 USD\"\n\
         [[routes]]\npath = \"/paid/*\"\nprice = \"0.01 USD\"\n",
        port.trim(),
        agent.url
    );
    let gateway = Gateway::start_in(dir, &toml);
    let (plain, secure) = (gateway.addr, format!("localhost:{}", gateway.https.unwrap().port()));
    let asked = json!({
        "urls": [[format!("http://{plain}"), format!("ws://{plain}")],
                 [format!("https://{secure}"), format!("wss://{secure}")]],
        "ca": ca,
        "agent": agent.url,
        "key": serde_json::from_str::<Value>(&private_jwk(&agent)).unwrap(),
    });
    writeln!(peer.stdin.take().unwrap(), "{asked}").unwrap();
    let mut lines = String::new();
    said.read_to_string(&mut lines).unwrap();
    assert!(peer.wait().unwrap().success(), "{lines}");
    assert_eq!(lines.lines().count(), 8, "{lines}");
    let (_, dir) = gateway.stop();
    let (_, rows, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    let delivery = |row: &str| serde_json::from_str::<Value>(row).unwrap()["outcome"]["delivery"].clone();
    assert_eq!(rows.lines().map(delivery).collect::<Vec<_>>(), ["complete"; 4], "{rows}{err}");
}
