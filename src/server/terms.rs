//! Live terms: those of this configuration, durable before their first offer, and earlier ones whose offers may still be
//! out. Priced routes are closed until both are known.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::core_thread::Serving;
use crate::ledger::ledger_store::LedgerStore;
use crate::ledger::store::{Store as _, Unavailable};
use crate::payment::quoted::is_quote;
use crate::payment::terms::{Template, Term, Terms};
use crate::proxy::core::Shared;

/// How often live terms are made durable again, so that offers outlive a crash.
const AGAIN_EVERY: Duration = Duration::from_secs(30);
/// How often those of other gateways over the same books are looked for.
const OTHERS_EVERY: Duration = Duration::from_secs(1);
/// How often it is tried while priced routes wait for it.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// The longest `ttl_seconds` that any configuration may have had.
const TTL_MAX_MS: u64 = 3_600_000;

/// Keeps the terms of what is served live, whatever that is, until it is dropped.
pub(super) async fn keep(store: Arc<LedgerStore>, mut serving: watch::Receiver<Serving>) {
    loop {
        let shared = serving.borrow_and_update().shared.clone();
        let terms = LiveTerms::new(shared, store.clone());
        tokio::select! {
            () = terms.keep() => return,
            changed = serving.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// What makes terms live.
#[derive(Clone)]
pub(super) struct LiveTerms {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<LedgerStore>,
    own: Vec<Arc<Term>>,
}

impl LiveTerms {
    /// The terms of the offers of `shared`.
    pub(super) fn new(shared: Arc<Shared>, store: Arc<LedgerStore>) -> LiveTerms {
        let mut own: Vec<Arc<Term>> =
            shared.quoted().flat_map(|(offer, _)| &offer.entries).map(|e| e.term.clone()).collect();
        if shared.config.exact.v1 {
            let ttl = shared.config.offers.ttl.as_secs();
            own.extend(shared.quoted().flat_map(|(offer, key)| key.quotes(&offer.entries, ttl)).map(Term::new));
        }
        LiveTerms { shared, store, own }
    }

    /// Makes this configuration's terms durable, then reads the earlier ones; priced routes may open after it.
    ///
    /// # Errors
    /// The ledger cannot be asked now.
    pub(super) async fn load(&self) -> Result<(), Unavailable> {
        self.remember().await?;
        self.read().await
    }

    /// Reads the terms that are live, of this configuration and of others.
    async fn read(&self) -> Result<(), Unavailable> {
        let (config, now_ms) = (&self.shared.config, self.shared.clock.now_ms());
        let grace_ms = 2 * config.identity.skew.as_millis() as u64 + 2 * AGAIN_EVERY.as_millis() as u64;
        let earlier = self.store.recent_terms(now_ms.saturating_sub(TTL_MAX_MS + grace_ms)).await?;
        let mut terms = Terms::default();
        self.own.iter().filter(|term| !is_quote(&term.template)).for_each(|term| terms.insert(term.clone()));
        earlier
            .into_iter()
            .filter_map(|(bytes, loaded_ms)| Some((Template::from_bytes(&bytes)?, loaded_ms)))
            .filter(|(t, loaded_ms)| loaded_ms + t.ttl.saturating_mul(1000) + grace_ms >= now_ms)
            .for_each(|(template, loaded_ms)| {
                let ttl_ms = template.ttl.saturating_mul(1000);
                self.store.raise_ttl_max(ttl_ms);
                if is_quote(&template) {
                    terms.insert_quote(Term::new(template), loaded_ms + ttl_ms + grace_ms);
                } else {
                    terms.insert(Term::new(template));
                }
            });
        self.shared.open_with(terms);
        Ok(())
    }

    /// Loads the terms as soon as the ledger can be asked, if that was not done; then makes them durable again and again:
    /// they stay live for a while after the last time.
    async fn keep(self) {
        while self.shared.terms().is_none() {
            if let Err(error) = self.load().await {
                tracing::warn!(%error, "priced routes are closed: the terms of offers are not durable yet");
                tokio::time::sleep(RETRY_EVERY).await;
            }
        }
        let mut every = tokio::time::interval(AGAIN_EVERY);
        let mut others = tokio::time::interval(OTHERS_EVERY);
        others.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let is_shared = self.shared.config.ledger.location.file().is_none();
        loop {
            tokio::select! {
                _ = every.tick() => {
                    if let Err(error) = self.remember().await {
                        tracing::warn!(%error, "offers of this configuration may not outlive this process");
                    }
                }
                // A gateway that started since then may have made offers that are paid here.
                _ = others.tick(), if is_shared => {
                    if let Err(error) = self.read().await {
                        tracing::debug!(%error, "the terms of other gateways could not be read");
                    }
                }
            }
        }
    }

    async fn remember(&self) -> Result<(), Unavailable> {
        self.store.remember_terms(self.own.iter().map(|t| (t.digest, t.template.to_bytes())).collect()).await
    }
}
