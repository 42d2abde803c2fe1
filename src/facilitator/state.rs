//! What cores and control thread share: the endpoints, and what is known about each.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderValue;
use rustls::ClientConfig;
use tokio::sync::Semaphore;

use super::breaker::Breaker;
use super::http::{Http, UrlError};
use super::sandbox::Sandbox;
use crate::clock::Clock;
use crate::wire::x402::facilitator::SupportedKind;

/// One facilitator.
#[derive(Debug)]
pub struct Endpoint {
    /// As the configuration calls it: `cdp`.
    pub name: Arc<str>,
    /// Whether the operator says that a settlement may be sent twice; for the caller, nothing here re-sends one.
    pub idempotent: bool,
    /// What answers.
    pub backend: Backend,
}

/// What answers for an endpoint.
#[derive(Debug)]
pub enum Backend {
    /// A server.
    Http(Http),
    /// The built-in one, which moves no money.
    Sandbox(Sandbox),
}

/// How much and how long; [`Limits::default`] has the values in brackets.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For one `/verify` or `/supported`, connection included (5 s).
    pub verify: Duration,
    /// For one `/settle`, connection included (90 s).
    pub settle: Duration,
    /// Of these, for name, connection and TLS (5 s).
    pub connect: Duration,
    /// How long a call waits for one of the slots of its facilitator (5 s).
    pub slot: Duration,
    /// Calls at once to one facilitator (64); `/verify` takes at most three quarters, so that a payment that was
    /// accepted finds a slot to be settled.
    pub concurrency: usize,
    /// Failures in a row after which a facilitator is left alone (5).
    pub failures: u32,
    /// For how long at first (5 s).
    pub hold: Duration,
    /// And at most (60 s); it doubles with each probe that fails.
    pub hold_max: Duration,
    /// Between two looks at `/supported` (10 min).
    pub refresh: Duration,
    /// After one that failed (1 s), doubled each time up to 60 times that; `Retry-After` is heeded.
    pub retry: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let seconds = Duration::from_secs;
        Limits {
            verify: seconds(5),
            settle: seconds(90),
            connect: seconds(5),
            slot: seconds(5),
            concurrency: 64,
            failures: 5,
            hold: seconds(5),
            hold_max: seconds(60),
            refresh: seconds(600),
            retry: seconds(1),
        }
    }
}

impl Endpoint {
    /// A server at `url` (`https://x402.example/facilitator`, at most one slash at its end is dropped).
    /// `authorization` is sent with every call and never logged. Without `tls`, `https` trusts the built-in roots.
    ///
    /// # Errors
    /// [`UrlError`] when the URL can't be asked.
    pub fn http(
        name: impl Into<Arc<str>>,
        url: &str,
        authorization: Option<HeaderValue>,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Endpoint, UrlError> {
        let backend = Backend::Http(Http::new(url, authorization, tls)?);
        Ok(Endpoint { name: name.into(), idempotent: false, backend })
    }

    /// The built-in facilitator, by name and URL `sandbox:`.
    pub fn sandbox(clock: Clock) -> Endpoint {
        Endpoint { name: Arc::from("sandbox"), idempotent: false, backend: Backend::Sandbox(Sandbox::new(clock)) }
    }

    /// What the books call it: the URL without a slash at its end; `sandbox:` for the built-in one.
    pub fn url(&self) -> &str {
        match &self.backend {
            Backend::Http(http) => http.url(),
            Backend::Sandbox(_) => "sandbox:",
        }
    }
}

/// All facilitators, in the order of the configuration.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) all: Vec<Facilitator>,
    pub(super) limits: Limits,
}

/// One facilitator and what is known about it. No lock is held across an await.
#[derive(Debug)]
pub(super) struct Facilitator {
    pub(super) endpoint: Endpoint,
    breaker: Mutex<Breaker>,
    /// What `/supported` said last; `None` before it first did.
    supported: RwLock<Option<Arc<[SupportedKind]>>>,
    /// One for each call.
    pub(super) slots: Semaphore,
    /// One besides for each `/verify`.
    pub(super) verifies: Semaphore,
}

impl Facilitator {
    pub(super) fn new(endpoint: Endpoint, limits: &Limits) -> Facilitator {
        let supported = match &endpoint.backend {
            Backend::Http(_) => None,
            Backend::Sandbox(_) => Some(Sandbox::supported().into()),
        };
        let slots = limits.concurrency.max(1);
        Facilitator {
            endpoint,
            breaker: Mutex::default(),
            supported: RwLock::new(supported),
            slots: Semaphore::new(slots),
            verifies: Semaphore::new((slots * 3).div_ceil(4)),
        }
    }

    pub(super) fn breaker<T>(&self, with: impl FnOnce(&mut Breaker) -> T) -> T {
        with(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn supported(&self) -> Option<Arc<[SupportedKind]>> {
        self.supported.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn learn(&self, kinds: Vec<SupportedKind>) {
        *self.supported.write().unwrap_or_else(PoisonError::into_inner) = Some(kinds.into());
    }
}
