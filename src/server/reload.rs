//! What another configuration may not change while the process runs.

use crate::config::{Config, Listen};

/// The keys of which two configurations say different things, and which are decided when the process starts.
pub(super) fn fixed(before: &Config, after: &Config) -> Vec<&'static str> {
    let tls = |config: &Config| config.server.tls.as_ref().map(|tls| tls.listen.clone());
    let ledger = |config: &Config| {
        let ledger = &config.ledger;
        (ledger.location.clone(), ledger.zone.clone(), ledger.keys_max, ledger.queue_max, ledger.sync)
    };
    let listen = |config: &Config| -> Vec<Listen> { config.server.listen.clone() };
    let all = [
        ("server.listen", listen(before) != listen(after)),
        ("server.tls.listen", tls(before) != tls(after)),
        ("admin.listen", before.admin.listen != after.admin.listen),
        ("server.cores", before.server.cores != after.server.cores),
        ("ledger", ledger(before) != ledger(after)),
        ("identity.skew_seconds", before.identity.skew != after.identity.skew),
        ("telemetry.json", before.telemetry.json != after.telemetry.json),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}
