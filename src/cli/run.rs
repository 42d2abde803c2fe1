//! `tollgate run`: the gateway, until TERM or interrupt.

use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::{counted, error, note, say};
use super::{Exit, color};
use crate::config::{self, Config, Options};
use crate::server::Gateway;

/// Serve: the gateway itself.
///
/// TERM or interrupt drains: no new connections, open exchanges end within `server.drain_seconds`, the books are closed. A
/// second signal ends at once: answers under way are broken off, outcomes that are not written stay `unproven`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tollgate run -c tollgate.toml\n  tollgate run --sandbox            try token payments on paper\n  \
                  TOLLGATE__SERVER__LISTEN=0.0.0.0:80 tollgate run"
)]
pub struct Run {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", default_value = "tollgate.toml")]
    config: PathBuf,
    /// Settle token payments on paper, as `exact.sandbox = true`: no money moves, test networks only.
    #[arg(long)]
    sandbox: bool,
}

impl Run {
    pub(super) fn run(self) -> Exit {
        let config = match config::load_with(&self.config, std::env::vars(), Options { sandbox: self.sandbox }) {
            Ok(config) => config,
            Err(errors) => {
                note(&errors.render(color()));
                return Exit::Unusable;
            }
        };
        start_logging(&config);
        if let Some(warnings) = &config.warnings {
            note(&warnings.render(color()));
        }
        let priced = config.routes.iter().filter(|r| r.price.is_some()).count();
        let sandbox = if config.exact.sandbox { "; SANDBOX: token payments are settled on paper" } else { "" };
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(failure) => {
                error(format_args!("signals can't be heard: {failure}"));
                return Exit::Failed;
            }
        };
        let gateway = match Gateway::start(config) {
            Ok(gateway) => gateway,
            Err(failure) => {
                error(failure);
                return Exit::Unusable;
            }
        };
        let listening: Vec<String> = gateway.addresses().iter().map(|a| format!("http://{a}")).collect();
        // The line that scripts wait for.
        say(&format!(
            "tollgate {} listens on {} ({}{sandbox})\n",
            env!("CARGO_PKG_VERSION"),
            listening.join(", "),
            counted(priced, "priced route", "priced routes")
        ));
        signals.wait();
        tracing::info!("draining");
        std::thread::spawn(move || {
            signals.wait();
            tracing::warn!("a second signal: the drain is cut short, what is open is broken off");
            // Exit code of a shell for a second interrupt.
            std::process::exit(130);
        });
        gateway.drain();
        tracing::info!("stopped");
        Exit::Done
    }
}

/// TERM and interrupt, heard from the moment that this exists.
pub(super) struct Signals {
    runtime: tokio::runtime::Runtime,
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to hear. Before the line that scripts wait for: what comes after it must be heard.
    pub(super) fn listen() -> std::io::Result<Signals> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (term, interrupt) = {
            let _guard = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        Ok(Signals { runtime, term, interrupt })
    }

    /// Waits for the next.
    pub(super) fn wait(&mut self) {
        let Signals { runtime, term, interrupt } = self;
        runtime.block_on(async {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
    }
}

fn start_logging(config: &Config) {
    use tracing_subscriber::EnvFilter;
    // `check` refused filters that do not parse.
    let filter = EnvFilter::try_new(&config.telemetry.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color());
    if config.telemetry.json {
        builder.json().init();
    } else {
        builder.init();
    }
}
