//! The outside parts of `tests/interop/x402` as tests use them: a facilitator with its chain, shops, clients.

use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::Value;
use tollgate::wire::evm::address::Address;
use tollgate::wire::evm::ecdsa::SigningKey;

use crate::support::client::{exchange, get};
use crate::support::wallet::Wallet;
use crate::support::*;

/// A program that runs until its standard input closes, which it does when this is dropped and when the test dies.
pub struct Server {
    child: Child,
    /// The line that it printed.
    pub facts: Value,
    /// What it complains of; shops do so about each payment that they can't read.
    log: tempfile::NamedTempFile,
}

impl Server {
    fn start(command: &mut Command) -> Server {
        let log = tempfile::NamedTempFile::new().unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.reopen().unwrap());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said = || std::fs::read_to_string(log.path()).unwrap_or_default();
        let facts = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {command:?}: {line:?}\n{}", said()));
        Server { child, facts, log }
    }

    pub fn text(&self, name: &str) -> String {
        self.facts[name].as_str().unwrap_or_else(|| panic!("no {name}: {}", self.facts)).to_owned()
    }

    /// The address of a member that is a URL.
    pub fn addr(&self, name: &str) -> SocketAddr {
        self.text(name).strip_prefix("http://").and_then(|rest| rest.split('/').next()?.parse().ok()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- log of {} ---\n{}",
                self.facts,
                std::fs::read_to_string(self.log.path()).unwrap_or_default()
            );
        }
    }
}

/// What the facilitator and its chain count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Atomic units, of whom the gateway names as payee.
    pub payee: u64,
    pub payer: u64,
    pub settled: u64,
    /// Calls of `/settle`.
    pub asked: u64,
}

/// The outside parts. Tests use them one after the other, or the balances would not tell who moved what.
pub struct Stage {
    dir: PathBuf,
    python: Option<PathBuf>,
    pub facilitator: Server,
    /// The account with the money.
    pub payer: Wallet,
}

impl Stage {
    /// The stage, once it is this test's turn; `None`, and a line that says so, where the packages are not installed.
    pub fn enter() -> Option<MutexGuard<'static, Stage>> {
        // Never dropped: the facilitator ends with this process, whose end closes its standard input.
        static STAGE: OnceLock<Mutex<Stage>> = OnceLock::new();
        let path = |variable| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
        let Some(dir) = path("TOLLGATE_X402_DIR") else {
            skipped("interop-x402", "TOLLGATE_X402_DIR is not set");
            return None;
        };
        let python = path("TOLLGATE_X402_PYTHON");
        if python.is_none() {
            skipped("interop-x402-python", "TOLLGATE_X402_PYTHON is not set");
        }
        let stage = STAGE.get_or_init(|| {
            let facilitator = Server::start(Command::new("node").arg("facilitator.mjs").current_dir(&dir));
            let payer = wallet_of(facilitator.facts["payer"]["privateKey"].as_str().unwrap());
            Mutex::new(Stage { dir, python, facilitator, payer })
        });
        Some(stage.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another official server, with the facilitator as its own.
    pub fn server(&self, script: &str) -> Server {
        let url = self.facilitator.text("facilitator");
        Server::start(Command::new("node").arg(script).current_dir(&self.dir).env("FACILITATOR_URL", url))
    }

    /// The official MCP SDK's server, which knows nothing of payments; with any `schema`, a tool has an output schema.
    pub fn mcp_server(&self, mode: &str, schema: &str) -> Server {
        Server::start(
            Command::new("node").arg("mcp_server.mjs").current_dir(&self.dir).env("MODE", mode).env("SCHEMA", schema),
        )
    }

    /// The official server that sells its tool itself; `None` where it can't run.
    pub fn mcp_shop(&self) -> Option<Server> {
        let mut command = Command::new(self.python.as_deref()?);
        command.arg("mcp_shop.py").current_dir(&self.dir);
        command.env("FACILITATOR_URL", self.facilitator.text("facilitator"));
        for (variable, fact) in [("NETWORK", "network"), ("PAY_TO", "payTo")] {
            command.env(variable, self.facilitator.text(fact));
        }
        Some(Server::start(&mut command))
    }

    /// Lets an MCP client call something, by its variables: the line that it prints. `None` where it can't run.
    pub fn run_mcp(&self, script: &str, url: &str, variables: &[(&str, &str)]) -> Option<Value> {
        let program = if script.ends_with(".py") { self.python.as_deref()? } else { "node".as_ref() };
        let mut command = Command::new(program);
        command.arg(script).arg(url).current_dir(&self.dir).stdin(Stdio::null());
        command.env("PRIVATE_KEY", self.facilitator.facts["payer"]["privateKey"].as_str().unwrap());
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        Some(serde_json::from_str(&out).unwrap_or_else(|e| panic!("{script}: {e}\n{out}{err}")))
    }

    /// A gateway before an MCP server that sells its tools `add` and `fail`, the prompt and the resource at 0.01 USD.
    pub fn mcp_gateway(&self, server: SocketAddr, more: &str) -> Gateway {
        let sold =
            ["tool = \"add\"", "tool = \"sum\"", "tool = \"fail\"", "prompt = \"greet\"", "resource = \"memo://*\""];
        let routes: String = sold
            .iter()
            .map(|sold| format!("[[routes]]\npath = \"/mcp\"\n{sold}\nprice = \"0.01 USD\"\naccept = [\"exact\"]\n"))
            .collect();
        Gateway::start(&format!(
            r#"
[server]
listen = ["127.0.0.1:0"]
cores = 2
drain_seconds = 2
[origin]
url = "http://{server}"
[facilitators.local]
url = "{facilitator}"
[[exact.assets]]
network = "{network}"
pay_to = "{pay_to}"
{routes}
{more}"#,
            facilitator = self.facilitator.text("facilitator"),
            network = self.facilitator.text("network"),
            pay_to = self.facilitator.text("payTo"),
        ))
    }

    pub fn tally(&self) -> Tally {
        let seen = get(self.facilitator.addr("facilitator"), "/balances").json();
        let number = |value: &Value| match value {
            Value::String(text) => text.parse().unwrap(),
            other => other.as_u64().unwrap(),
        };
        let [payee, payer] = ["payTo", "payer"].map(|name| number(&seen[name]));
        Tally { payee, payer, settled: number(&seen["settled"]), asked: number(&seen["calls"]["settle"]) }
    }

    /// From where the facilitator settles `upto`, as an operator looks it up.
    fn settler(&self) -> String {
        let supported = get(self.facilitator.addr("facilitator"), "/supported").json();
        let kinds = supported["kinds"].as_array().unwrap();
        let upto = kinds.iter().find(|kind| kind["scheme"] == "upto").expect("the facilitator takes no upto");
        upto["extra"]["facilitatorAddress"].as_str().unwrap().to_owned()
    }

    /// The client that pays `upto`, and names its payments.
    pub fn main_client(&self) -> &'static Client {
        &CLIENTS[0]
    }

    /// The clients that can run here.
    pub fn clients(&self) -> Vec<&'static Client> {
        CLIENTS.iter().filter(|client| !client.python() || self.python.is_some()).collect()
    }

    /// Lets a client ask for a URL, with this body if there is one, and pay: the line that it prints.
    pub fn run(&self, client: &Client, url: &str, body: Option<&str>) -> Value {
        self.run_with(client, url, body, &[])
    }

    /// The same with settings of the client.
    pub fn run_with(&self, client: &Client, url: &str, body: Option<&str>, settings: &[(&str, &str)]) -> Value {
        let program = if client.python() { self.python.as_deref().unwrap() } else { "node".as_ref() };
        let mut command = Command::new(program);
        command.arg(client.script).arg(url).current_dir(&self.dir).stdin(Stdio::null());
        command.env("PRIVATE_KEY", self.facilitator.facts["payer"]["privateKey"].as_str().unwrap());
        if client.version == 1 {
            command.env("PAYMENT_VERSION", "1");
        }
        command.envs(settings.iter().copied());
        if let Some(body) = body {
            command.env("BODY", body);
        }
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{}: {e}\n{out}{err}", client.name))
    }

    /// A gateway before `origin`, with the routes `/exact/*`, `/exact-first/*`, `/deferred-first/*`, `/deferred/*` and
    /// `/upto/*` at 0.01 USD, the facilitator of the stage, and `agent`'s account for what is deferred. Everything else is free.
    pub fn gateway(&self, origin: &Origin, agent: &Agent) -> Gateway {
        self.gateway_with(origin, agent, "")
    }

    /// The same with `more` at the end of its configuration.
    pub fn gateway_with(&self, origin: &Origin, agent: &Agent, more: &str) -> Gateway {
        let routes: String = [
            ("exact", r#""exact""#),
            ("exact-first", r#""exact", "deferred""#),
            ("deferred-first", r#""deferred", "exact""#),
            ("deferred", r#""deferred""#),
            ("upto", r#""upto""#),
        ]
        .iter()
        .map(|(name, accept)| format!("[[routes]]\npath = \"/{name}/*\"\nprice = \"0.01 USD\"\naccept = [{accept}]\n"))
        .collect();
        Gateway::start(&format!(
            r#"
[server]
listen = ["127.0.0.1:0"]
cores = 2
drain_seconds = 2
[origin]
url = "http://{origin}"
[deferred]
terms_url = "https://example.com/terms"
[[accounts]]
name = "acme"
agents = ["{agent}"]
credit = "1000 USD"
[facilitators.local]
url = "{facilitator}"
[[exact.assets]]
network = "{network}"
pay_to = "{pay_to}"
facilitator_address = "{settler}"
{routes}{more}"#,
            origin = origin.addr,
            agent = agent.url,
            facilitator = self.facilitator.text("facilitator"),
            network = self.facilitator.text("network"),
            pay_to = self.facilitator.text("payTo"),
            settler = self.settler(),
        ))
    }
}

/// The wallet of a key in hex.
fn wallet_of(key: &str) -> Wallet {
    let digits = key.trim_start_matches("0x");
    let bytes: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect();
    let key = SigningKey::from_slice(&bytes).unwrap();
    let address: Address = tollgate::wire::evm::ecdsa::address_of(key.verifying_key());
    Wallet { key, address }
}

/// An official client.
#[derive(Debug)]
pub struct Client {
    /// Its package and the version of x402 that it speaks.
    pub name: &'static str,
    /// A word for paths.
    pub path: &'static str,
    script: &'static str,
    /// Of x402.
    pub version: u8,
    /// It speaks version 1, but reads the field of version 2 before it looks at the body, and then can't pay.
    pub prefers_field: bool,
}

impl Client {
    fn python(&self) -> bool {
        self.script.ends_with(".py")
    }
}

const fn client(
    name: &'static str,
    path: &'static str,
    script: &'static str,
    version: u8,
    prefers_field: bool,
) -> Client {
    Client { name, path, script, version, prefers_field }
}

static CLIENTS: [Client; 7] = [
    client("@x402/fetch, version 2", "fetch", "fetch.mjs", 2, false),
    client("@x402/axios, version 2", "axios", "axios.mjs", 2, false),
    client("x402 for Python, version 2", "python", "pay.py", 2, false),
    client("x402-fetch, version 1", "v1-fetch", "v1-fetch.mjs", 1, false),
    client("@x402/fetch, version 1", "fetch-v1", "fetch.mjs", 1, true),
    client("@x402/axios, version 1", "axios-v1", "axios.mjs", 1, true),
    client("x402 for Python, version 1", "python-v1", "pay.py", 1, true),
];

/// What holds a shop's extensions against the official package; it pays as @x402/fetch does.
pub static EXTENSIONS: Client = client("@x402/extensions", "extensions", "extensions.mjs", 2, false);

/// Passes requests on to a server as they are and keeps them; `without` is left out of the answers.
pub fn relay(to: SocketAddr, without: &'static str) -> Origin {
    Origin::scripted(move |seen, socket| {
        let hop = ["connection", "keep-alive", "content-length", "transfer-encoding"];
        let mut request = format!("{}\r\n", seen.line);
        for (name, value) in seen.headers.iter().filter(|(name, _)| !hop.contains(&&*name.to_ascii_lowercase())) {
            request += &format!("{name}: {value}\r\n");
        }
        if !seen.body.is_empty() {
            request += &format!("Content-Length: {}\r\n", seen.body.len());
        }
        let answer = exchange(to, [request.as_bytes(), b"Connection: close\r\n\r\n", &seen.body].concat());
        let mut head = format!("HTTP/1.1 {} Relayed\r\n", answer.status);
        for (name, value) in &answer.headers {
            if !hop.contains(&&*name.to_ascii_lowercase()) && !name.eq_ignore_ascii_case(without) {
                head += &format!("{name}: {value}\r\n");
            }
        }
        head += &format!("Content-Length: {}\r\n\r\n", answer.body.len());
        socket.write_all(&[head.as_bytes(), &answer.body].concat()).is_ok()
    })
}
