//! Strangers pay: agents written with other people's packages, npm's `web-bot-auth` and PyPI's `http-message-signatures`,
//! and the official clients of x402. `./test interop` installs them and says where they are.

mod support;

#[path = "interop/answers.rs"]
mod answers;
#[path = "interop/chain.rs"]
mod chain;
#[path = "interop/mcp.rs"]
mod mcp;
#[path = "interop/purchases.rs"]
mod purchases;
#[path = "interop/stage.rs"]
mod stage;
#[path = "interop/websocket.rs"]
mod websocket;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use support::gateway::tollgate;
use support::*;

/// An environment variable, or a line that says why the test did not run.
fn wanted(test: &str, variable: &str) -> Option<OsString> {
    let value = std::env::var_os(variable).filter(|v| !v.is_empty());
    if value.is_none() {
        skipped(test, &format!("{variable} is not set"));
    }
    value
}

/// The private key as a JWK, which both clients read.
fn private_jwk(agent: &Agent) -> String {
    let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (d, x) = (base64(agent.key.as_bytes()), base64(agent.key.verifying_key().as_bytes()));
    format!(r#"{{"kty":"OKP","crv":"Ed25519","d":"{d}","x":"{x}"}}"#)
}

/// Runs a client to its end; `forms` are those that it pays in, one purchase each.
fn pays(command: &mut Command, forms: &str) {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let mut key = tempfile::NamedTempFile::new().unwrap();
    key.write_all(private_jwk(&agent).as_bytes()).unwrap();
    let output = command
        .env("GATEWAY_URL", format!("http://{}/paid/page?q=1", gateway.addr))
        .env("AGENT_URL", &agent.url)
        .env("KEY_FILE", key.path())
        .env("FORMS", forms)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    let purchases = forms.split(',').count();
    assert_eq!(out.lines().count(), 3 * purchases, "{out}");
    assert_eq!(origin.calls(), purchases);
    let (_, dir) = gateway.stop();
    let (code, rows, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!((code, rows.lines().count()), (0, purchases), "{rows}{err}");
}

#[test]
fn an_agent_on_npms_web_bot_auth_pays() {
    let Some(client) = wanted("interop-node", "TOLLGATE_NODE_CLIENT") else { return };
    pays(Command::new("node").arg(client), "string,dictionary");
}

#[test]
fn an_agent_on_pypis_http_message_signatures_pays() {
    let Some(python) = wanted("interop-python", "TOLLGATE_PYTHON") else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/python/pay.py");
    pays(Command::new(python).arg(script), "string,dictionary,bare");
}
