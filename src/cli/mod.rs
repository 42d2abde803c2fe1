//! The commands.
//!
//! Exit codes: 0 done · 1 failed · 2 bad usage or configuration, or the gateway can't start · 3 unreachable · 4 refused ·
//! 5 not found · 6 not proven.

mod account;
pub mod check;
mod demo;
mod directory;
mod explain;
mod explain_request;
mod healthcheck;
mod keygen;
mod ledger;
mod output;
mod pay;
mod probe;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::Options;

/// A reverse proxy that puts a price on a website for agents.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tollgate demo                          see two payments happen; no file, no network
  tollgate check -c tollgate.toml        what a configuration means, or all that is wrong with it
  tollgate run -c tollgate.toml          serve
  tollgate pay --key agent.jwk --agent https://signer.example.com https://example.com/page
  tollgate pay --wallet wallet.key https://example.com/page
  tollgate ledger list --ledger tollgate.sqlite

Exit codes:
  0 done   1 failed   2 bad usage or configuration   3 unreachable   4 refused   5 not found
  6 not proven";

#[derive(Debug, Subcommand)]
enum Command {
    /// See two payments happen: a site, a gateway and an agent in one process, no file, no network.
    Demo(demo::Demo),
    /// Serve: the gateway itself.
    Run(run::Run),
    /// Say what a configuration means, or everything that is wrong with it.
    Check(Check),
    /// Request a page, and pay for it if it has a price.
    Pay(Box<pay::Pay>),
    /// Show what you have bought from a site and what you owe it, or dispute a charge.
    Account(Box<account::Account>),
    /// Show what a captured request says: its payment, and for each signature what was signed and whether it holds.
    ExplainRequest(explain_request::ExplainRequest),
    /// Look at an x402 site from outside: its offers, and whether browsers, caches and machines get on with them.
    Probe(probe::Probe),
    /// Ask a running gateway how it is.
    Healthcheck(healthcheck::Healthcheck),
    /// Make a key for an agent, or a wallet.
    Keygen(keygen::Keygen),
    /// Serve an agent's key directory, or print it.
    Directory(directory::Directory),
    /// Close book days, and make statements of what is owed for them.
    #[command(after_help = ledger::SETTLE_EXAMPLES)]
    Settle(ledger::Settle),
    /// Look at the books.
    #[command(subcommand, after_help = ledger::EXAMPLES)]
    Ledger(ledger::Ledger),
    /// Print a completion script for a shell.
    Completions(Completions),
}

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tollgate completions bash > /etc/bash_completion.d/tollgate\n  \
                        tollgate completions zsh > \"${fpath[1]}/_tollgate\"")]
struct Completions {
    /// Which shell.
    shell: clap_complete::Shell,
}

/// Say what a configuration means, or everything that is wrong with it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tollgate check -c tollgate.toml\n  tollgate check --json | jq .problems\n  \
                        tollgate check --explain GET https://example.com/articles/1")]
struct Check {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", default_value = "tollgate.toml")]
    config: PathBuf,
    /// As for `run --sandbox`.
    #[arg(long)]
    sandbox: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Say which route a request takes, what it costs, and why.
    #[arg(long, num_args = 2, value_names = ["METHOD", "URL"], conflicts_with = "json")]
    explain: Option<Vec<String>>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Bad usage or configuration, or the gateway can't start.
    Unusable = 2,
    /// A server can't be reached.
    Unreachable = 3,
    /// Refused by a server.
    Refused = 4,
    /// There is no such thing.
    NotFound = 5,
    /// Nothing is wrong, but what would prove it is missing.
    NotProven = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Reads the arguments and runs the command.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(demo) => demo.run().into(),
        Command::Run(run) => run.run().into(),
        Command::Check(Check { config, sandbox, explain: Some(asked), .. }) => {
            explained(&config, sandbox, &asked).into()
        }
        Command::Check(Check { config, sandbox, json, explain: None }) => {
            let (text, code) = check::check(&config, std::env::vars(), Options { sandbox }, json, color());
            // A report of mistakes is what `--json` is asked for; without it they are an error.
            if code == 0 || json {
                output::say(&text);
            } else {
                output::note(text.trim_end_matches('\n'));
            }
            ExitCode::from(code)
        }
        Command::Pay(pay) => pay.run().into(),
        Command::Account(account) => account.run().into(),
        Command::ExplainRequest(explain) => explain.run().into(),
        Command::Probe(probe) => probe.run().into(),
        Command::Healthcheck(healthcheck) => healthcheck.run().into(),
        Command::Keygen(keygen) => keygen.run().into(),
        Command::Directory(directory) => directory.run().into(),
        Command::Settle(settle) => settle.run().into(),
        Command::Ledger(ledger) => ledger.run().into(),
        Command::Completions(Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut script);
            output::say(&String::from_utf8_lossy(&script));
            Exit::Done.into()
        }
    }
}

/// Whether errors may be coloured: on a terminal, unless NO_COLOR is set.
fn color() -> bool {
    output::Paint::stderr().0
}

/// `check --explain`: 0 for a request that would be served, paid or free; 5 for one that would not.
fn explained(path: &std::path::Path, sandbox: bool, asked: &[String]) -> Exit {
    let config = match crate::config::load_with(path, std::env::vars(), Options { sandbox }) {
        Ok(config) => config,
        Err(errors) => {
            output::note(&errors.render(color()));
            return Exit::Unusable;
        }
    };
    let [method, url] = asked else { return Exit::Unusable };
    match explain::explain(&config, method, url) {
        Ok((text, served)) => {
            output::say(&text);
            if served { Exit::Done } else { Exit::NotFound }
        }
        Err(why) => {
            output::error(why);
            Exit::Unusable
        }
    }
}
