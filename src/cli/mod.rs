//! The commands.
//!
//! Exit codes: 0 done · 1 failed · 2 bad usage or configuration, or the gateway can't start · 3 unreachable · 4 refused ·
//! 5 not found · 6 not proven.

pub mod check;
mod demo;
mod directory;
mod healthcheck;
mod keygen;
mod ledger;
mod output;
mod pay;
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
#[command(after_help = "Examples:\n  tollgate check -c tollgate.toml\n  tollgate check --json | jq .problems")]
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
        Command::Check(Check { config, sandbox, json }) => {
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
