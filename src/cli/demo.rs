//! `tollgate demo`: a site, a gateway, an agent and two payments, all in this process.

mod exchange;
mod scratch;
mod site;
mod token;

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};

use ed25519_dalek::SigningKey;
use tokio::net::TcpListener;

use self::exchange::{ACCOUNT, Stage};
use self::scratch::Scratch;
use super::keygen::write_private;
use super::output::{Paint, error, print};
use super::run::Signals;
use super::{Exit, color};
use crate::agent::directory::{self, Published};
use crate::agent::{Agent, Wallet};
use crate::config;
use crate::server::Gateway;
use crate::wire::agent_url::AgentUrl;
use crate::wire::evm::ecdsa;
use crate::wire::jwk;

/// See two payments happen: a site, a gateway and an agent in one process, no file, no network.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Two payments: one on credit (`deferred`), one with a token (`exact`) in the sandbox, where no money moves. Everything
lives on free ports of this machine and in a temporary directory, which is removed at the end. After the exchange the
gateway stays up, with commands to try, until you interrupt it.

Examples:
  tollgate demo
  tollgate demo --once      end after the exchange; 0 if all of it went well")]
pub struct Demo {
    /// End after the exchange.
    #[arg(long)]
    once: bool,
}

/// What was started.
struct Running {
    // Dropped in this order: the gateway before the directory of its files.
    gateway: Gateway,
    stage: Stage,
    key_file: String,
    wallet_file: String,
    scratch: Scratch,
}

impl Demo {
    pub(super) fn run(self) -> Exit {
        start_logging();
        let interrupted = match on_interrupt() {
            Ok(interrupted) => interrupted,
            Err(failure) => {
                error(format_args!("signals can't be heard: {failure}"));
                return Exit::Failed;
            }
        };
        let running = match start() {
            Ok(running) => running,
            Err(reason) => {
                error(reason);
                return Exit::Failed;
            }
        };
        let told = exchange::show(&running.stage, Paint::stdout());
        let exit = match told {
            Ok(()) if self.once => Exit::Done,
            Ok(()) => {
                // Whoever stopped reading has no use for what goes on.
                if print(&running.next_commands()).is_ok() {
                    let _ = interrupted.recv();
                }
                Exit::Done
            }
            Err(reason) => {
                error(format_args!("the demo went wrong: {reason}"));
                Exit::Failed
            }
        };
        let Running { gateway, scratch, .. } = running;
        gateway.drain();
        drop(scratch);
        exit
    }
}

impl Running {
    fn next_commands(&self) -> String {
        let tollgate = quoted(&std::env::args().next().unwrap_or_else(|| "tollgate".to_owned()));
        let Stage { gateway, agent, ledger, .. } = &self.stage;
        let (key, agent, ledger) = (quoted(&self.key_file), agent.url(), quoted(&ledger.display().to_string()));
        let wallet = quoted(&self.wallet_file);
        format!(
            "\nThe gateway stays up until you interrupt it. Try, in another terminal:\n\n  \
             curl -i http://{gateway}/articles/1\n  \
             {tollgate} pay --key {key} --agent {agent} http://{gateway}/articles/2\n  \
             {tollgate} pay --key {key} --agent {agent} http://{gateway}/api/tides\n  \
             {tollgate} pay --wallet {wallet} http://{gateway}/api/tides\n  \
             {tollgate} ledger list --ledger {ledger}\n  \
             {tollgate} ledger audit --ledger {ledger}\n\n\
             The keys, the books and all else are in {}, removed at the end.\n",
            self.scratch.path().display()
        )
    }
}

fn start() -> Result<Running, String> {
    let scratch = Scratch::new().map_err(|failure| format!("no temporary directory: {failure}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|failure| failure.to_string())?;
    let listen = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).map_err(|failure| failure.to_string());
    let address = |listener: &TcpListener| listener.local_addr().map_err(|failure| failure.to_string());
    let (site_listener, directory_listener) = (listen()?, listen()?);
    let (site, agent_address) = (address(&site_listener)?, address(&directory_listener)?);

    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|failure| format!("no randomness: {failure}"))?;
    let key = SigningKey::from_bytes(&seed);
    let key_file = scratch.path().join("agent.jwk");
    write_private(&key_file, &(jwk::signing_key_json(&key) + "\n"), false).map_err(|failure| failure.to_string())?;
    getrandom::fill(&mut seed).map_err(|failure| format!("no randomness: {failure}"))?;
    let wallet = Wallet::new(ecdsa::SigningKey::from_slice(&seed).map_err(|failure| failure.to_string())?);
    let wallet_file = scratch.path().join("wallet.key");
    write_private(&wallet_file, &wallet.private_text(), false).map_err(|failure| failure.to_string())?;
    let url = AgentUrl::parse(&format!("http://{agent_address}")).map_err(|failure| failure.to_string())?;
    let agent = Agent::new(url, key);

    let published = Published::new(&[agent.public_jwk()]);
    let servers = std::thread::Builder::new().name("demo".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::join!(site::serve(site_listener), directory::serve(directory_listener, published))
        })
    });
    // Served until the process ends.
    drop(servers.map_err(|failure| failure.to_string())?);

    let toml = configuration(site, &agent);
    let config = config::parse(&toml, "demo.toml", scratch.path(), std::iter::empty());
    let config = config.map_err(|errors| errors.render(color()))?;
    let ledger = config.ledger.location.shown();
    let gateway = Gateway::start(config).map_err(|failure| failure.to_string())?;
    let listening = gateway.addresses().next().ok_or("the gateway listens nowhere")?;
    let stage = Stage { site, gateway: listening, agent, wallet, ledger };
    let (key_file, wallet_file) = (key_file.display().to_string(), wallet_file.display().to_string());
    Ok(Running { gateway, stage, key_file, wallet_file, scratch })
}

/// What an operator would write.
fn configuration(site: SocketAddr, agent: &Agent) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
cores = 1
drain_seconds = 1

[origin]
url = "http://{site}"

[[accounts]]
name = "{ACCOUNT}"
agents = ["{}"]
credit = "5 USD"

[exact]
sandbox = true

[[exact.assets]]
network = "eip155:84532"
pay_to = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"

[[routes]]
path = "/articles/*"
price = "0.01 USD"
description = "An article of The Quay"
mime_type = "text/html"

[[routes]]
path = "/api/*"
price = "0.001 USD"
accept = ["deferred", "exact"]
description = "The tides"
mime_type = "application/json"
"#,
        agent.url()
    )
}

/// Hears interrupts from the start, so that the temporary directory goes in any case.
fn on_interrupt() -> std::io::Result<Receiver<()>> {
    let (sender, receiver): (Sender<()>, _) = mpsc::channel();
    let mut signals = Signals::listen()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        signals.wait();
        let _ = sender.send(());
    })?;
    Ok(receiver)
}

fn start_logging() {
    use tracing_subscriber::EnvFilter;
    // The demo itself says that tokens are on paper.
    let filter = EnvFilter::new("warn,tollgate::server::facilitators=error");
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    // A logger that is set already will do.
    let _ = builder.with_writer(std::io::stderr).with_ansi(color()).try_init();
}

/// An argument as a shell takes it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | ':' | '=');
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn arguments_survive_a_shell() {
        for (text, expect) in [("/a/b.jwk", "/a/b.jwk"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")] {
            assert_eq!(quoted(text), expect);
        }
    }

    #[test]
    fn the_configuration_is_one_that_check_accepts_without_warning() {
        let url = AgentUrl::parse("http://127.0.0.1:9").unwrap();
        let toml = configuration("127.0.0.1:8".parse().unwrap(), &Agent::new(url, SigningKey::from_bytes(&[7; 32])));
        let config = config::parse(&toml, "demo.toml", Path::new(""), std::iter::empty()).unwrap();
        assert!(config.warnings.is_none());
    }
}
