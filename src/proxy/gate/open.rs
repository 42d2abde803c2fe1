//! Accounts that verified agents open by themselves (`[open_accounts]`): one for each registrable domain, `open:example.com`.
//!
//! What they may owe, each and together, is held by the books ([`crate::ledger::open_accounts`]). Here is who gets one, and how many
//! new ones a day there may be: new is an account of which the books have nothing. That count is of this process and begins anew
//! with it; the total needs no such care.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Asker, Visit};
use crate::config::Account;
use crate::ledger::day::{self, CreditPeriod};
use crate::ledger::open_accounts::PREFIX;
use crate::ledger::views::PATIENCE;
use crate::payment::reason::{Reason, Refusal};
use crate::wire::agent_url::AgentUrl;

/// Names that are remembered; then the books are asked anew.
const KNOWN_MAX: usize = 100_000;

/// Open accounts that have been met.
#[derive(Debug, Default)]
pub struct Opened(Mutex<Met>);

#[derive(Debug, Default)]
struct Met {
    known: HashSet<Arc<str>>,
    /// Of this day, UTC.
    day: i64,
    new: u32,
}

impl Opened {
    fn has(&self, account: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).known.contains(account)
    }

    /// Notes an account that the books know, or a new one if there may be one more.
    fn meet(&self, account: &Arc<str>, is_new: bool, most: u32, now_ms: u64) -> Result<(), Refusal> {
        let today = day::credit_period(CreditPeriod::Day, now_ms);
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if met.day != today {
            (met.day, met.new) = (today, 0);
        }
        if met.known.contains(account) {
            return Ok(());
        }
        if is_new && met.new >= most {
            let wait = day::credit_period_end_s(CreditPeriod::Day, now_ms).saturating_sub(now_ms / 1000).max(1);
            let detail = "no more agents open an account here today; come back later, or register";
            return Err(Refusal::new(Reason::RateLimited, detail).retry_after(wait));
        }
        if met.known.len() >= KNOWN_MAX {
            met.known.clear();
        }
        met.new += u32::from(is_new);
        met.known.insert(account.clone());
        Ok(())
    }
}

impl Asker<'_> {
    /// The account that an agent without one in the configuration has, if agents such as it may open one.
    pub(super) fn open_account(&self, agent: &AgentUrl) -> Option<Account> {
        // Whoever may write a file on a host does not speak for its domain.
        let open = self.shared.config.open_accounts.as_ref().filter(|_| agent.key_set().is_none())?;
        self.shared.may_open.admits(agent)?;
        Some(open.account(name(agent)))
    }
}

impl Visit<'_> {
    /// Lets an open account in that is about to buy, unless it is one too many.
    pub(super) async fn admit(&self, account: &Arc<str>) -> Result<(), Refusal> {
        let shared = &*self.core.shared;
        let Some(open) = shared.config.open_accounts.as_ref().filter(|_| !shared.opened.has(account)) else {
            return Ok(());
        };
        let unavailable = || Refusal::from(Reason::LedgerUnavailable).retry_after(5);
        let known = Box::pin(shared.store.has_used(account.clone()));
        let known = self.core.thread.ticker.timeout(PATIENCE, known).await.map_err(|_| unavailable())?;
        let is_new = !known.map_err(|_| unavailable())?;
        shared.opened.meet(account, is_new, open.new_per_day, shared.clock.now_ms())
    }
}

/// `open:example.com` of `https://a.example.com`, also for suffixes under which strangers have their sites
/// (`open:a.github.io`); where nobody can register names, the host and port.
fn name(agent: &AgentUrl) -> String {
    let host = agent.host();
    let is_name = host.parse::<std::net::Ipv4Addr>().is_err() && !host.starts_with('[');
    match psl::domain_str(host).filter(|_| is_name) {
        Some(domain) => format!("{PREFIX}{domain}"),
        None => format!("{PREFIX}{}", agent.authority()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_for_what_one_owner_has_registered() {
        for (agent, account) in [
            ("https://signer.example.com", "open:example.com"),
            ("https://example.com", "open:example.com"),
            ("https://a.b.c.example.co.uk", "open:example.co.uk"),
            ("https://me.github.io", "open:me.github.io"),
            ("https://a.me.github.io", "open:me.github.io"),
            ("https://github.io", "open:github.io"),
            ("https://com", "open:com"),
            ("https://XN--BCHER-KVA.example", "open:xn--bcher-kva.example"),
            ("http://127.0.0.1:9000", "open:127.0.0.1:9000"),
            ("http://[::1]:9000", "open:[::1]:9000"),
            ("http://localhost:80", "open:localhost"),
        ] {
            assert_eq!(name(&AgentUrl::parse(agent).unwrap()), account, "{agent}");
        }
    }

    #[test]
    fn so_many_new_ones_come_a_day_and_known_ones_always() {
        const NOON_MS: u64 = 1_795_521_600_000;
        let opened = Opened::default();
        let meet = |name: &str, is_new, now_ms| opened.meet(&name.into(), is_new, 2, now_ms).map_err(|r| r.retry_after);
        assert_eq!(meet("a", true, NOON_MS), Ok(()));
        assert_eq!(meet("a", true, NOON_MS), Ok(()), "counted once");
        assert_eq!(meet("b", true, NOON_MS), Ok(()));
        assert_eq!(meet("c", true, NOON_MS), Err(Some(43_200)));
        assert_eq!(meet("old", false, NOON_MS), Ok(()));
        assert!(opened.has("old") && !opened.has("c"));
        assert_eq!(meet("c", true, NOON_MS + 43_200_000), Ok(()));
    }
}
