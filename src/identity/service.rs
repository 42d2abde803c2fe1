//! The control thread's part: answers the cores' questions, one fetch per agent at a time, and keeps directories fresh.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::{Id, JoinError, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    error::{Error, FetchError},
    fetch::{Fetched, Fetcher},
    freshness::RETRY_MAX,
    guard::{Admission, Policy},
    keys::{AgentKey, Entry, Keys, Lookup, Question},
    resolve::{Resolve, SystemResolver},
};
use crate::{
    clock::Clock,
    config::{Config, Identity, Route},
    payment::permit::KeyRecord,
    wire::{
        agent_url::AgentUrl,
        directory::DirectoryKey,
        jwk::{Jwk, PublicKey},
    },
};

/// Directories that are read at once.
const FETCHES_MAX: usize = 16;
/// Of these, for agents that only a pattern admits: anybody can name more of them, and slow ones.
const OPEN_FETCHES_MAX: usize = 12;
/// Directories that are being read or wait for it; questions for more are answered `Unavailable`.
const FLIGHTS_MAX: usize = 256;
/// Questions that wait for a directory; more are answered `Unavailable`.
const WAITERS_MAX: usize = 4096;
/// A background refresh waits while so many directories are being read.
const REFRESHES_MAX: usize = 8;
/// How often due refreshes are looked for.
const TICK: Duration = Duration::from_secs(1);
/// After a directory was read, a key that it does not have is asked for once in this time.
const COMPLETE_MS: u64 = 60_000;
/// The first wait after a failure; doubled by each further one, up to [`RETRY_MAX`].
const HOLD: Duration = Duration::from_secs(10);
/// Longest `kid` that is kept; no signature names a key by more.
const KID_BYTES_MAX: usize = 256;
/// Seconds, when nothing was learned.
const BUSY_RETRY: u64 = 5;

/// Reads directories for the cores. Runs on one thread; [`Service::run`] it.
pub struct Service {
    keys: Keys,
    questions: mpsc::Receiver<Question>,
    policy: Policy,
    fetcher: Fetcher,
    clock: Clock,
    directories_max: usize,
    tick: Duration,
    slots: Arc<Semaphore>,
    open_slots: Arc<Semaphore>,
    /// Who waits for each directory that is being read.
    flights: HashMap<AgentUrl, Vec<Waiter>>,
    waiting: usize,
    tasks: JoinSet<Result<Fetched, FetchError>>,
    /// Whose directory a task reads, also when it panics.
    started: HashMap<Id, AgentUrl>,
}

struct Waiter {
    keyid: String,
    answer: oneshot::Sender<Lookup>,
}

impl Service {
    /// Puts the pins into the table, and gets ready to hear questions.
    ///
    /// # Errors
    /// [`Error`]: `ca_file` cannot be used.
    pub fn new(
        keys: Keys,
        questions: mpsc::Receiver<Question>,
        config: &Config,
        clock: Clock,
    ) -> Result<Service, Error> {
        let identity = &config.identity;
        let policy = Policy::new(&identity.allow, &config.accounts, config.routes.iter().flat_map(Route::admitted));
        pin(&keys, identity, &policy)?;
        let fetcher = Fetcher {
            tls: Arc::new(tls(identity)?),
            resolver: Arc::new(SystemResolver::new(FETCHES_MAX, OPEN_FETCHES_MAX)),
            clock: clock.clone(),
            deadline: identity.fetch,
            body_bytes_max: identity.directory_bytes,
            keys_max: identity.directory_keys,
            allow_test_keys: identity.allow_test_keys,
            skew: i64::try_from(identity.skew.as_secs()).unwrap_or(0),
            require_signed: identity.require_signed_directories,
        };
        Ok(Service {
            keys,
            questions,
            policy,
            fetcher,
            clock,
            directories_max: identity.directories,
            tick: TICK,
            slots: Arc::new(Semaphore::new(FETCHES_MAX)),
            open_slots: Arc::new(Semaphore::new(OPEN_FETCHES_MAX)),
            flights: HashMap::new(),
            waiting: 0,
            tasks: JoinSet::new(),
            started: HashMap::new(),
        })
    }

    /// Another resolver than the machine's.
    pub fn resolving(mut self, resolver: Arc<dyn Resolve>) -> Service {
        self.fetcher.resolver = resolver;
        self
    }

    /// Another time between looks for due refreshes than a second.
    pub fn ticking(mut self, every: Duration) -> Service {
        self.tick = every;
        self
    }

    /// Answers questions until it is dropped, which ends all fetches.
    pub async fn run(mut self) {
        let mut tick = interval(self.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(done) = self.tasks.join_next_with_id() => self.land(done),
                Some(question) = self.questions.recv() => self.hear(question),
                _ = tick.tick() => self.refresh(),
            }
        }
    }

    fn hear(&mut self, question: Question) {
        let Question { agent, keyid, answer } = question;
        match self.answer(&agent, &keyid) {
            // A dropped receiver is a client that left.
            Some(lookup) => drop(answer.send(lookup)),
            None => {
                self.waiting += 1;
                self.flights.entry(agent).or_default().push(Waiter { keyid, answer });
            }
        }
    }

    /// The answer to a question, unless it has to wait for the agent's directory, which is then being read.
    fn answer(&mut self, agent: &AgentUrl, keyid: &str) -> Option<Lookup> {
        let now_ms = self.clock.now_ms();
        // The answer to an earlier question may have said it.
        if let Some(lookup) = self.keys.find(agent, keyid, now_ms) {
            return Some(lookup);
        }
        let Some(admission) = self.policy.admits(agent) else {
            let reason = "the gateway does not read the key directory of this agent".to_owned();
            return Some(Lookup::Unavailable { retry_after: RETRY_MAX.as_secs(), reason });
        };
        if !self.flights.contains_key(agent) {
            if self.flights.len() >= FLIGHTS_MAX {
                return Some(unavailable(&FetchError::Busy));
            }
            self.start(agent.clone(), admission);
        }
        // Its directory is down: the known key stays good meanwhile, and nobody waits for another failure.
        let down = |entry: &&Entry| entry.failures > 0;
        let stale = self.keys.read(|table| Some(table.get(agent).filter(down)?.key(keyid, now_ms)?.clone()));
        if let Some(key) = stale {
            return Some(Lookup::Key(key));
        }
        (self.waiting >= WAITERS_MAX).then(|| unavailable(&FetchError::Busy))
    }

    fn start(&mut self, agent: AgentUrl, admission: Admission) {
        let fetcher = self.fetcher.clone();
        let (slots, open_slots) = (self.slots.clone(), self.open_slots.clone());
        let whose = agent.clone();
        let task = self.tasks.spawn(async move {
            let slot = async {
                let open = match admission.private_ok {
                    true => None,
                    false => Some(open_slots.acquire_owned().await),
                };
                (open, slots.acquire_owned().await)
            };
            let _slot = timeout(fetcher.deadline, slot).await.map_err(|_| FetchError::Busy)?;
            fetcher.fetch(&whose, admission).await
        });
        self.started.insert(task.id(), agent.clone());
        self.flights.insert(agent, Vec::new());
    }

    fn land(&mut self, done: Result<(Id, Result<Fetched, FetchError>), JoinError>) {
        let (id, result) = match done {
            Ok(done) => done,
            Err(error) => (error.id(), Err(FetchError::Internal(error.to_string()))),
        };
        let Some(agent) = self.started.remove(&id) else { return };
        let waiters = self.flights.remove(&agent).unwrap_or_default();
        self.waiting -= waiters.len();
        let now_ms = self.clock.now_ms();
        let fallback = match result {
            Ok(fetched) => {
                self.learn(&agent, fetched, now_ms);
                None
            }
            Err(error) => {
                self.fail(&agent, &error, now_ms);
                Some(unavailable(&error))
            }
        };
        for Waiter { keyid, answer } in waiters {
            let known = || self.keys.read(|t| Some(Lookup::Key(t.get(&agent)?.key(&keyid, now_ms)?.clone())));
            let found = self.keys.find(&agent, &keyid, now_ms).or_else(known);
            let lookup = found.or_else(|| fallback.clone()).unwrap_or(Lookup::NoSuchKey);
            drop(answer.send(lookup));
        }
    }

    /// The directory's answer replaces what was known.
    fn learn(&mut self, agent: &AgentUrl, fetched: Fetched, now_ms: u64) {
        let Fetched { keys, skipped, digest, fresh_for } = fetched;
        tracing::info!(%agent, keys = keys.len(), skipped = skipped.len(), fresh_s = fresh_for.as_secs(), "key directory read");
        for (index, error) in &skipped {
            tracing::warn!(%agent, index, reason = brief(&error), "key in directory not used");
        }
        let text: Arc<str> = Arc::from(agent.to_string());
        let keys = keys.into_iter().map(|key| Arc::new(agent_key(&text, key, digest))).collect();
        self.change(agent, now_ms, |entry| {
            entry.keys = keys;
            entry.fresh_until_ms = now_ms + millis(fresh_for);
            entry.complete_until_ms = now_ms + COMPLETE_MS;
            // Ten to twenty percent early, so that agents read together are not read together again.
            let early = fresh_for / 10 + fresh_for.mul_f64(0.1 * random());
            entry.refresh_at_ms = entry.fresh_until_ms - millis(early);
            entry.failures = 0;
            entry.failed = None;
        });
    }

    /// What was known stays; nobody asks for a while.
    fn fail(&mut self, agent: &AgentUrl, error: &FetchError, now_ms: u64) {
        tracing::warn!(%agent, reason = %error, detail = brief(error), "key directory not read");
        // Nothing was tried.
        if matches!(error, FetchError::Busy) {
            return;
        }
        let asked = match error {
            FetchError::Status { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let reason = reason(error);
        self.change(agent, now_ms, |entry| {
            let hold = HOLD.saturating_mul(1 << entry.failures.min(8)).max(asked).min(RETRY_MAX);
            entry.failures = entry.failures.saturating_add(1);
            entry.failed = Some((now_ms + millis(hold), reason));
        });
    }

    fn change(&self, agent: &AgentUrl, now_ms: u64, change: impl FnOnce(&mut Entry)) {
        let listed = self.policy.admits(agent).is_some_and(|admission| admission.private_ok);
        self.keys.update(|table| {
            let entry = table.entry(agent.clone()).or_insert_with(|| {
                let entry = Entry { listed, ..Entry::default() };
                entry.touch(now_ms);
                entry
            });
            entry.asked_ms = now_ms;
            change(entry);
            while table.len() > self.directories_max && evict(table, agent) {}
        });
    }

    /// Reads again, before they go stale, directories that were used since they were last read.
    fn refresh(&mut self) {
        let now_ms = self.clock.now_ms();
        let free = REFRESHES_MAX.saturating_sub(self.flights.len());
        let due = |entry: &Entry| {
            let used = entry.used_ms.load(Ordering::Relaxed) > entry.asked_ms;
            used && !entry.keys.is_empty() && entry.failures == 0 && entry.refresh_at_ms <= now_ms
        };
        let due: Vec<AgentUrl> = self.keys.read(|table| {
            let due = table.iter().filter(|(agent, entry)| due(entry) && !self.flights.contains_key(agent));
            due.map(|(agent, _)| agent.clone()).take(free).collect()
        });
        for agent in due {
            if let Some(admission) = self.policy.admits(&agent) {
                self.start(agent, admission);
            }
        }
    }
}

/// Drops the entry that is missed least: admitted by a pattern rather than listed, without keys, unused for longest.
/// Pins stay, whatever the limit, and so does `keep`; false if there is nothing else.
fn evict(table: &mut HashMap<AgentUrl, Entry>, keep: &AgentUrl) -> bool {
    let value = |entry: &Entry| (entry.listed, !entry.keys.is_empty(), entry.used_ms.load(Ordering::Relaxed));
    let others = table.iter().filter(|(agent, entry)| *agent != keep && entry.pinned.is_empty());
    let Some(agent) = others.min_by_key(|(_, entry)| value(entry)).map(|(agent, _)| agent.clone()) else {
        return false;
    };
    table.remove(&agent).is_some()
}

fn pin(keys: &Keys, identity: &Identity, policy: &Policy) -> Result<(), Error> {
    for pin in &identity.pins {
        let failed = |reason: String| Error::Pin { agent: pin.agent.clone(), reason };
        let agent = AgentUrl::parse(&pin.agent).map_err(|error| failed(error.to_string()))?;
        let jwk: Jwk = serde_json::from_str(&pin.jwk).map_err(|error| failed(error.to_string()))?;
        let public = jwk.public_key(identity.allow_test_keys).map_err(|error| failed(error.to_string()))?;
        let admission = policy.admits(&agent);
        let key = agent_key(&Arc::from(pin.agent.as_str()), DirectoryKey { public, jwk }, [0; 32]);
        keys.update(|table| {
            let entry = table.entry(agent).or_default();
            entry.pinned.push(Arc::new(key));
            entry.listed = admission.is_some_and(|admission| admission.private_ok);
            // Without a directory that may be read, the pins are all there is.
            entry.complete_until_ms = if admission.is_none() { u64::MAX } else { 0 };
        });
    }
    Ok(())
}

fn tls(identity: &Identity) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    match &identity.ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let failed = |reason: String| Error::CaFile { path: path.clone(), reason };
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(failed("it holds no certificate in PEM".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut tls = builder.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A directory is read once an hour: sessions are not worth their memory.
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(tls)
}

/// Keeps of the JWK what a lookup needs, so that a directory full of long members costs little.
fn agent_key(agent: &Arc<str>, key: DirectoryKey, digest: [u8; 32]) -> AgentKey {
    let DirectoryKey { public, jwk } = key;
    let kid = jwk.kid.filter(|kid| kid.len() <= KID_BYTES_MAX);
    if kid.as_deref().is_some_and(|kid| kid != public.thumbprint()) {
        tracing::debug!(%agent, thumbprint = public.thumbprint(), "the kid of a key is not its thumbprint");
    }
    let jwk = Jwk { kid, nbf: jwk.nbf, exp: jwk.exp, ..Jwk::default() };
    AgentKey { record: Arc::new(record(agent, &public, digest)), jwk, public }
}

fn record(agent: &Arc<str>, public: &PublicKey, directory_digest: [u8; 32]) -> KeyRecord {
    let (thumbprint, jwk) = (Arc::from(public.thumbprint()), Arc::from(public.canonical_jwk()));
    KeyRecord { thumbprint, agent: agent.clone(), jwk, directory_digest }
}

fn unavailable(error: &FetchError) -> Lookup {
    Lookup::Unavailable { retry_after: BUSY_RETRY, reason: reason(error) }
}

fn reason(error: &FetchError) -> String {
    format!("the agent's key directory could not be read: {error}")
}

/// The head of a text that may quote an answer, escaped.
fn brief(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take(200).collect()
}

/// From 0 to 1; 0 should the machine have no randomness, as this only spreads load.
fn random() -> f64 {
    f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
