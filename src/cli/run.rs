//! `tollgate run`: the gateway, until TERM or interrupt.

use std::path::PathBuf;
use std::process::Command;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::output::{counted, error, note, say};
use super::{Exit, color};
use crate::config::{self, Config, ConfigErrors, Options};
use crate::server::{self, Gateway};

/// Serve: the gateway itself.
///
/// TERM or interrupt drains: no new connections, open exchanges end within `server.drain_seconds`, the books are closed. A
/// second signal ends at once: answers under way are broken off, outcomes that are not written stay `unproven`.
///
/// HUP reads the configuration again, with the files that it names. Connections stay open and offers that are out stay good.
/// All of it is taken over or, when something is wrong with it, nothing; the log says which.
///
/// USR2 starts the program anew, from the same path and with the same arguments, hands it the listening sockets, and drains once
/// it serves: for another version, without a connection that is refused. Should it not come to serve, this process goes on.
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
        let config = match self.load() {
            Ok(config) => config,
            Err(errors) => {
                note(&errors.render(color()));
                return Exit::Unusable;
            }
        };
        let filter = start_logging(&config);
        if let Some(warnings) = &config.warnings {
            note(&warnings.render(color()));
        }
        let priced = config.routes.iter().filter(|r| r.price.is_some()).count();
        let observed = config.routes.iter().filter(|route| route.observes()).count();
        let observed =
            if observed > 0 { format!("; OBSERVE: {observed} of them ask nobody to pay") } else { String::new() };
        let sandbox = if config.exact.sandbox { "; SANDBOX: token payments are settled on paper" } else { "" };
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(failure) => {
                error(format_args!("signals can't be heard: {failure}"));
                return Exit::Failed;
            }
        };
        warn_of(super::check::observing(&config));
        // Before it could be replaced.
        let program = std::env::current_exe();
        let mut gateway = match Gateway::start(config) {
            Ok(gateway) => gateway,
            Err(failure) => {
                error(failure);
                return Exit::Unusable;
            }
        };
        let listening: Vec<String> = gateway.endpoints().iter().map(ToString::to_string).collect();
        let admin: String = gateway.admin_endpoints().iter().map(|endpoint| format!(", admin {endpoint}")).collect();
        // The line that scripts wait for.
        say(&format!(
            "tollgate {} listens on {}{admin} ({}{observed}{sandbox})\n",
            env!("CARGO_PKG_VERSION"),
            listening.join(", "),
            counted(priced, "priced route", "priced routes")
        ));
        server::tell_ready();
        notify(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
        loop {
            match signals.wait() {
                Heard::Reload => self.reload(&gateway, &filter),
                Heard::HandOn if hand_on(&mut gateway, program.as_ref()) => break,
                Heard::HandOn => {}
                Heard::End => {
                    notify(&[NotifyState::Stopping]);
                    break;
                }
            }
        }
        tracing::info!("draining");
        std::thread::spawn(move || {
            signals.wait_for_end();
            tracing::warn!("a second signal: the drain is cut short, what is open is broken off");
            // Exit code of a shell for a second interrupt.
            std::process::exit(130);
        });
        gateway.drain();
        tracing::info!("stopped");
        Exit::Done
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        config::load_with(&self.config, std::env::vars(), Options { sandbox: self.sandbox })
    }

    /// Another configuration, or the old one and the reason.
    fn reload(&self, gateway: &Gateway, filter: &Filter) {
        let since = NotifyState::monotonic_usec_now();
        notify(&[Some(NotifyState::Reloading), since.ok()].into_iter().flatten().collect::<Vec<_>>());
        self.take_over(gateway, filter);
        notify(&[NotifyState::Ready]);
    }

    fn take_over(&self, gateway: &Gateway, filter: &Filter) {
        let config = match self.load() {
            Ok(config) => config,
            Err(errors) => {
                note(&errors.render(color()));
                tracing::error!("the configuration can't be used, see above; the one before stays");
                return;
            }
        };
        if let Some(warnings) = &config.warnings {
            note(&warnings.render(color()));
        }
        let observed = super::check::observing(&config);
        let log = config.telemetry.log.clone();
        let priced = config.routes.iter().filter(|r| r.price.is_some()).count();
        let before = gateway.priced_routes();
        match gateway.reload(config) {
            Ok(()) => {
                if let Ok(next) = EnvFilter::try_new(&log) {
                    let _ = filter.reload(next);
                }
                tracing::info!(priced, before, "the configuration was read again");
                warn_of(observed);
                if priced == 0 && before > 0 {
                    tracing::warn!("no route has a price any more: everything is free now");
                }
            }
            Err(error) => tracing::error!(%error, "the configuration is not taken over; the one before stays"),
        }
    }
}

/// Says which prices are not asked for.
fn warn_of(observed: Option<String>) {
    if let Some(what) = observed {
        tracing::warn!("mode = \"observe\" is {what}");
    }
}

/// Tells the service manager, where there is one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}

/// Whether another process serves now.
fn hand_on(gateway: &mut Gateway, program: Result<&PathBuf, &std::io::Error>) -> bool {
    let program = match program {
        Ok(program) => program,
        Err(error) => {
            tracing::error!(%error, "where this program is can't be told, so it can't be started anew");
            return false;
        }
    };
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1));
    match gateway.hand_on(command) {
        Ok(pid) => {
            tracing::info!(pid, "another process serves, this one ends");
            true
        }
        Err(error) => {
            tracing::error!(%error, "the new process does not take over, this one goes on");
            false
        }
    }
}

/// What may be logged; exchanged by a reload.
type Filter = reload::Handle<EnvFilter, Registry>;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// HUP.
    Reload,
    /// USR2.
    HandOn,
    /// TERM, interrupt.
    End,
}

/// Signals, heard from the moment that this exists.
pub(super) struct Signals {
    runtime: tokio::runtime::Runtime,
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
    user_2: Signal,
}

impl Signals {
    /// Begins to hear. Before the line that scripts wait for: what comes after it must be heard.
    pub(super) fn listen() -> std::io::Result<Signals> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listen = |kind| {
            let _guard = runtime.enter();
            signal(kind)
        };
        let (term, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let (hangup, user_2) = (listen(SignalKind::hangup())?, listen(SignalKind::user_defined2())?);
        Ok(Signals { runtime, term, interrupt, hangup, user_2 })
    }

    /// Waits for the next.
    pub(super) fn wait(&mut self) -> Heard {
        let Signals { runtime, term, interrupt, hangup, user_2 } = self;
        runtime.block_on(async {
            tokio::select! {
                _ = term.recv() => Heard::End,
                _ = interrupt.recv() => Heard::End,
                _ = hangup.recv() => Heard::Reload,
                _ = user_2.recv() => Heard::HandOn,
            }
        })
    }

    /// Waits for one that ends.
    pub(super) fn wait_for_end(&mut self) {
        while self.wait() != Heard::End {}
    }
}

fn start_logging(config: &Config) -> Filter {
    // `check` refused filters that do not parse.
    let filter = EnvFilter::try_new(&config.telemetry.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(color());
    let registry = tracing_subscriber::registry().with(filter);
    if config.telemetry.json {
        registry.with(lines.json()).init();
    } else {
        registry.with(lines).init();
    }
    handle
}
