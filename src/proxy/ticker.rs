//! Deadlines of one core: coarse, cheap, without a lock.
//!
//! A deadline of seconds does not need a timer wheel. Each core keeps its deadlines in one slab and looks through it ten
//! times a second; arming and disarming writes one cell. A deadline is never early and at most 200 ms late.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);
const NEVER: u64 = u64::MAX;

/// All deadlines of a core.
#[derive(Debug)]
pub struct Ticker {
    started: tokio::time::Instant,
    now_ms: Cell<u64>,
    entries: RefCell<Slab<Entry>>,
}

#[derive(Debug)]
struct Entry {
    due_ms: u64,
    waker: Option<Waker>,
}

impl Ticker {
    /// A ticker that stands until [`Ticker::run`] is spawned on the same core.
    pub fn new() -> Rc<Ticker> {
        Rc::new(Ticker { started: tokio::time::Instant::now(), now_ms: Cell::new(0), entries: RefCell::default() })
    }

    /// Milliseconds since the core started, as of the last tick.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// Moves the time and wakes whoever is due; runs as long as the core.
    pub async fn run(self: Rc<Self>) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.tick();
        }
    }

    fn tick(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NEVER - 1);
        self.now_ms.set(now);
        let mut due: Vec<Waker> = Vec::new();
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            if entry.due_ms <= now {
                due.extend(entry.waker.take());
            }
        }
        // Woken after the borrow ends: a waker may run code of ours when it is dropped.
        due.into_iter().for_each(Waker::wake);
    }

    /// A deadline, not armed.
    pub fn timer(self: &Rc<Self>) -> Timer {
        let key = self.entries.borrow_mut().insert(Entry { due_ms: NEVER, waker: None });
        Timer { ticker: self.clone(), key }
    }

    /// Bounds a future; the deadline is armed when it is first polled.
    pub fn timeout<F: Future>(self: &Rc<Self>, limit: Duration, future: F) -> Timeout<F> {
        Timeout { timer: self.timer(), limit: Some(limit), future }
    }
}

/// One deadline of a core.
#[derive(Debug)]
pub struct Timer {
    ticker: Rc<Ticker>,
    key: usize,
}

impl Timer {
    /// Due `after` from now.
    pub fn arm(&self, after: Duration) {
        let after = u64::try_from(after.as_millis()).unwrap_or(NEVER / 2);
        // One tick more, since `now` may be a tick old.
        self.set(self.ticker.now_ms().saturating_add(after).saturating_add(TICK.as_millis() as u64));
    }

    /// Not due any more.
    pub fn disarm(&self) {
        self.set(NEVER);
    }

    fn set(&self, due_ms: u64) {
        if let Some(entry) = self.ticker.entries.borrow_mut().get_mut(self.key) {
            entry.due_ms = due_ms;
        }
    }

    /// Ready when due; else the task is woken once it is.
    pub fn poll_due(&self, cx: &Context<'_>) -> Poll<()> {
        let now = self.ticker.now_ms();
        match self.ticker.entries.borrow_mut().get_mut(self.key) {
            Some(entry) if entry.due_ms > now => {
                if !entry.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                    entry.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Milliseconds since the core started, as of the last tick.
    pub fn now_ms(&self) -> u64 {
        self.ticker.now_ms()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        drop(self.ticker.entries.borrow_mut().try_remove(self.key));
    }
}

/// A future with a deadline; see [`Ticker::timeout`].
#[derive(Debug)]
pub struct Timeout<F> {
    timer: Timer,
    limit: Option<Duration>,
    future: F,
}

/// The deadline passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl<F: Future + Unpin> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = Pin::new(&mut self.future).poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if let Some(limit) = self.limit.take() {
            self.timer.arm(limit);
        }
        self.timer.poll_due(cx).map(|()| Err(Elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_never_early_and_little_late() {
        let ticker = Ticker::new();
        let local = tokio::task::LocalSet::new();
        local.spawn_local(ticker.clone().run());
        local
            .run_until(async {
                for ms in [1, 50, 100, 999, 10_000] {
                    let start = tokio::time::Instant::now();
                    let limit = Duration::from_millis(ms);
                    assert_eq!(ticker.timeout(limit, std::future::pending::<()>()).await, Err(Elapsed));
                    let took = start.elapsed();
                    assert!(took >= limit && took <= limit + Duration::from_millis(210), "{ms}: {took:?}");
                }
                assert_eq!(ticker.timeout(Duration::from_secs(1), std::future::ready(7)).await, Ok(7));
                assert!(ticker.entries.borrow().is_empty());
            })
            .await;
    }
}
