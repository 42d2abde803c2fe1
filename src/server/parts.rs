//! A configuration and the files that it names → what cores serve by. What has not changed is taken over from before: keys
//! of agents, the state of facilitators, answers that are kept.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::control::Work;
use super::core_thread::Serving;
use super::{StartError, facilitators, files, status};
use crate::clock::Clock;
use crate::config::{Config, Origin, Route};
use crate::facilitator::Facilitators;
use crate::identity::guard::Policy;
use crate::identity::{Keys, Service};
use crate::ledger::ledger_store::LedgerStore;
use crate::ledger::views::Views;
use crate::payment::gateway_key::GatewayKey;
use crate::payment::secrets::Secrets;
use crate::payment::signed::Rules;
use crate::proxy::answers::Answers;
use crate::proxy::core::{Accounts, Shared};
use crate::proxy::prices::Prices;
use crate::proxy::rates::Buckets;
use crate::telemetry::Telemetry;
use crate::tls;

/// How long after the start priced requests wait for books that are being handed over.
const HAND_OVER: Duration = Duration::from_secs(5);

/// What the files say that a configuration names.
pub(super) struct Files {
    pub(super) secrets: Secrets,
    /// The secrets were made just now.
    pub(super) secrets_are_new: bool,
    pub(super) key: Option<GatewayKey>,
    pub(super) tls: Vec<Option<Arc<rustls::ClientConfig>>>,
    pub(super) token: Option<[u8; 32]>,
}

impl Files {
    pub(super) fn read(config: &Config) -> Result<Files, StartError> {
        let (secrets, secrets_are_new) =
            files::load_secrets(&config.offers.secret_file, config.ledger.location.file().is_none())?;
        let key = config.signing.key_file.as_deref().map(files::load_key).transpose()?;
        let token = status::token(config.admin.token_file.as_deref())?;
        Ok(Files { secrets, secrets_are_new, key, tls: origin_tls(config)?, token })
    }
}

/// What cores serve by, and what the control thread does for it.
pub(super) struct Parts {
    pub(super) serving: Serving,
    pub(super) work: Vec<Work>,
}

impl Parts {
    pub(super) fn new(
        config: Config,
        files: Files,
        store: &Arc<LedgerStore>,
        (clock, telemetry): (&Clock, &Arc<Telemetry>),
        before: Option<&Serving>,
    ) -> Result<Parts, StartError> {
        let config = Arc::new(config);
        let mut work = Vec::new();
        let keys = keys(&config, clock, before, &mut work)?;
        let facilitators = call_facilitators(&config, clock, before, &mut work)?;
        let nodes = Arc::new(facilitators::nodes(&config)?);
        let offers = Shared::offers_of(&config);
        let kept_bytes = config.exact.answers_bytes;
        let has_named = config.routes.iter().any(|route| route.origin_price);
        let named = if has_named { config.offers.origin_prices } else { 0 };
        let answers = before.map(|before| &before.shared).filter(|b| b.config.exact.answers_bytes == kept_bytes);
        let shared = Arc::new(Shared {
            rules: rules(&config),
            accounts: Accounts::of(&config),
            may_open: Policy::new(&config.identity.allow, &[], std::iter::empty()),
            opened: before.map_or_else(Arc::default, |before| before.shared.opened.clone()),
            store: store.clone(),
            views: before.map_or_else(
                || Views::new(config.ledger.location.clone(), clock.clone()),
                |before| before.shared.views.clone(),
            ),
            disputes: before.map_or_else(Arc::default, |before| before.shared.disputes.clone()),
            answers: answers.map_or_else(|| Answers::new(kept_bytes), |shared| shared.answers.clone()),
            claimed: Shared::claimed_of(&config),
            route_keys: Shared::route_keys_of(&config),
            route_names: Shared::route_names_of(&config),
            catalogue: Shared::catalogue_of(&config, &offers, clock.now_ms() / 1000),
            failures: Buckets::new(config.server.limits.failures),
            agent_requests: Buckets::new(config.server.limits.agent_requests),
            prices: Prices::new(named, config.offers.origin_price),
            config,
            offers,
            key: files.key,
            secrets: files.secrets,
            terms: OnceLock::new(),
            awaited_until_ms: clock.now_ms() + HAND_OVER.as_millis() as u64,
            facilitators,
            keys,
            telemetry: telemetry.clone(),
            clock: clock.clone(),
        });
        Ok(Parts { serving: Serving { shared, tls: files.tls, token: files.token, nodes }, work })
    }
}

/// The keys of agents: those before, where whose signatures count has not changed.
fn keys(
    config: &Arc<Config>,
    clock: &Clock,
    before: Option<&Serving>,
    work: &mut Vec<Work>,
) -> Result<Keys, StartError> {
    let agents = |config: &Config| {
        let admitted = config.routes.iter().flat_map(Route::admitted);
        config.accounts.iter().flat_map(|a| &a.agents).chain(admitted).cloned().collect::<Vec<_>>()
    };
    if let Some(before) = before.map(|before| &before.shared)
        && before.config.identity == config.identity
        && agents(&before.config) == agents(config)
    {
        return Ok(before.keys.clone());
    }
    let (keys, questions) = Keys::new();
    let service = Service::new(keys.clone(), questions, config, clock.clone())?;
    work.push(Box::new(move || drop(tokio::task::spawn_local(service.run()))));
    Ok(keys)
}

/// Those who settle: called anew with what the files say now, except on paper, where the paper is kept.
fn call_facilitators(
    config: &Arc<Config>,
    clock: &Clock,
    before: Option<&Serving>,
    work: &mut Vec<Work>,
) -> Result<Facilitators, StartError> {
    if let Some(before) = before.map(|before| &before.shared)
        && before.config.exact.sandbox
        && config.exact.sandbox
    {
        return Ok(before.facilitators.clone());
    }
    let (facilitators, service) = facilitators::start(config, clock)?;
    // It ends when nobody can ask it any more.
    work.push(Box::new(move || drop(tokio::task::spawn_local(service.run()))));
    Ok(facilitators)
}

fn rules(config: &Config) -> Rules {
    Rules {
        skew: config.identity.skew.as_secs().cast_signed(),
        window: config.deferred.window.as_secs().cast_signed(),
        require_authority: config.deferred.require_authority,
        require_path: config.deferred.require_path,
        lenient_signature: config.deferred.lenient_signature,
    }
}

/// The TLS settings of each `https` origin, by index.
fn origin_tls(config: &Config) -> Result<Vec<Option<Arc<rustls::ClientConfig>>>, StartError> {
    let of = |origin: &Origin| {
        let roots = |reason| StartError::Roots { path: origin.ca_file.clone().unwrap_or_default(), reason };
        origin.https.then(|| tls::client::http(origin.ca_file.as_deref()).map_err(roots)).transpose()
    };
    config.origins.iter().map(of).collect()
}
