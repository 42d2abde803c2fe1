//! The table of known keys, and the way to ask for one that is not in it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};

use crate::payment::permit::KeyRecord;
use crate::wire::agent_url::AgentUrl;
use crate::wire::jwk::{Jwk, PublicKey};

/// How long a key is used after its time while its directory fails: a stolen key must not live on by an attack on the
/// directory that would remove it.
const STALE_MAX_MS: u64 = 24 * 3600 * 1000;
/// Questions that may wait for the control thread; more are answered `Unavailable`.
const QUESTIONS_MAX: usize = 1024;

/// A key of an agent, parsed once.
#[derive(Debug)]
pub struct AgentKey {
    /// For verifying.
    pub public: PublicKey,
    /// As published: its name and its times.
    pub jwk: Jwk,
    /// For the books.
    pub record: Arc<KeyRecord>,
}

/// What is known about the key of an agent.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// The agent has this key.
    Key(Arc<AgentKey>),
    /// The agent's directory was read and does not have it.
    NoSuchKey,
    /// The directory could not be read: neither valid nor invalid.
    Unavailable {
        /// When to try again, seconds.
        retry_after: u64,
        /// For the client: what failed, without addresses.
        reason: String,
    },
}

/// What one agent's directory said last; times in Unix ms.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// Its usable keys.
    pub keys: Vec<Arc<AgentKey>>,
    /// Keys that the operator vouches for: never fetched, never out of date.
    pub pinned: Vec<Arc<AgentKey>>,
    /// A cached key is used without asking until then.
    pub fresh_until_ms: u64,
    /// After a failure: the answer until then, instead of another fetch.
    pub failed: Option<(u64, String)>,
    /// A key that is not in `keys` is not asked for again until then.
    pub complete_until_ms: u64,
    /// When a key was last found or asked for.
    pub used_ms: Arc<AtomicU64>,
    /// When the directory was last read or failed.
    pub asked_ms: u64,
    /// If it was used since then, it is read again from then on, before anybody waits for it.
    pub refresh_at_ms: u64,
    /// Failures since it was last read.
    pub failures: u32,
    /// The operator listed exactly this origin: kept longer than those that a pattern admits.
    pub listed: bool,
}

/// A question to the control thread.
#[derive(Debug)]
pub struct Question {
    /// Whose key.
    pub agent: AgentUrl,
    /// Its name in the signature.
    pub keyid: String,
    /// The answer.
    pub answer: oneshot::Sender<Lookup>,
}

/// The keys of agents, shared by all cores.
#[derive(Debug, Clone)]
pub struct Keys {
    table: Arc<RwLock<HashMap<AgentUrl, Entry>>>,
    questions: mpsc::Sender<Question>,
}

impl Entry {
    /// The key of this name that is valid now: a thumbprint, or else the `kid` that this agent gave it.
    pub fn key(&self, keyid: &str, now_ms: u64) -> Option<&Arc<AgentKey>> {
        let now = (now_ms / 1000).cast_signed();
        let print = |k: &&Arc<AgentKey>| k.public.thumbprint() == keyid;
        // A key may reuse the `kid` of one that has expired.
        let current = || self.keys.iter().filter(|k| k.jwk.is_current(now));
        let kid = |k: &&Arc<AgentKey>| k.jwk.kid.as_deref() == Some(keyid);
        self.pinned.iter().find(print).or_else(|| current().find(print)).or_else(|| current().find(kid))
    }

    /// What this entry says without a fetch; `None` when the directory has to be asked.
    pub fn look(&self, keyid: &str, now_ms: u64) -> Option<Lookup> {
        // A failed fetch never evicts: a key that is there stays good until its directory answers without it.
        let held = self.failed.as_ref().filter(|(until, _)| now_ms < *until);
        if let Some(key) = self.key(keyid, now_ms) {
            let pinned = self.pinned.iter().any(|pin| Arc::ptr_eq(pin, key));
            let stale_ok = held.is_some() && now_ms < self.fresh_until_ms.saturating_add(STALE_MAX_MS);
            if pinned || now_ms < self.fresh_until_ms || stale_ok {
                return Some(Lookup::Key(key.clone()));
            }
            // Known, but its directory has been silent for too long, or may be asked again.
            held?;
        }
        if let Some((until, reason)) = held {
            let retry_after = (until - now_ms).div_ceil(1000).max(1);
            return Some(Lookup::Unavailable { retry_after, reason: reason.clone() });
        }
        (now_ms < self.complete_until_ms).then_some(Lookup::NoSuchKey)
    }

    /// Notes a use.
    pub fn touch(&self, now_ms: u64) {
        // Cores share the cache line: it is written once a millisecond at most.
        if self.used_ms.load(Ordering::Relaxed) < now_ms {
            self.used_ms.store(now_ms, Ordering::Relaxed);
        }
    }
}

impl Keys {
    /// An empty table, and the end at which the control thread hears the questions.
    pub fn new() -> (Keys, mpsc::Receiver<Question>) {
        let (questions, receiver) = mpsc::channel(QUESTIONS_MAX);
        (Keys { table: Arc::default(), questions }, receiver)
    }

    /// What is known without asking.
    pub fn find(&self, agent: &AgentUrl, keyid: &str, now_ms: u64) -> Option<Lookup> {
        self.read(|table| {
            let entry = table.get(agent)?;
            let found = entry.look(keyid, now_ms);
            if matches!(found, Some(Lookup::Key(_))) {
                entry.touch(now_ms);
            }
            found
        })
    }

    /// Asks the control thread to read the agent's directory.
    pub async fn ask(&self, agent: AgentUrl, keyid: String) -> Lookup {
        let busy = || Lookup::Unavailable { retry_after: 5, reason: "too many directories are being read".into() };
        let (answer, heard) = oneshot::channel();
        match self.questions.try_send(Question { agent, keyid, answer }) {
            Ok(()) => heard.await.unwrap_or_else(|_| busy()),
            Err(_) => busy(),
        }
    }

    /// Reads the table.
    pub fn read<T>(&self, read: impl FnOnce(&HashMap<AgentUrl, Entry>) -> T) -> T {
        read(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the table; for the control thread.
    pub fn update<T>(&self, change: impl FnOnce(&mut HashMap<AgentUrl, Entry>) -> T) -> T {
        change(&mut self.table.write().unwrap_or_else(PoisonError::into_inner))
    }
}
