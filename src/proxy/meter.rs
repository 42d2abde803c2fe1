//! What a client connection is doing: the one place that its deadlines and its deliveries are decided from.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use slab::Slab;

use super::delivery::Delivered;
use super::ticker::{Ticker, Timer};
use crate::config::Limits;

/// A write is «recently blocked» for this long after it went on.
const RECENT: Duration = Duration::from_secs(5);

/// Shared by a connection's socket, its driver and the answers on it; all on one core.
#[derive(Debug)]
pub struct Meter {
    timer: Timer,
    limits: Limits,
    /// HTTP/2: several requests share the connection.
    multiplexed: Cell<bool>,
    /// Requests being served.
    active: Cell<u32>,
    /// Bytes of the next head have arrived.
    head_started: Cell<bool>,
    /// Idle since, or the head's first byte.
    waiting_since_ms: Cell<u64>,
    /// The socket takes nothing since; `None` while it does.
    blocked_since_ms: Cell<Option<u64>>,
    /// When a blocked write last went on.
    unblocked_ms: Cell<Option<u64>>,
    /// Bytes that the socket took.
    written: Cell<u64>,
    /// The driver gave the client up because it takes nothing.
    stalled: Cell<bool>,
    /// The socket is closed; the HTTP layer may drop it before the answers on it.
    gone: Cell<bool>,
    /// Answers that ended for the HTTP layer, while the socket may still have to take bytes of them.
    unflushed: RefCell<Vec<Delivered>>,
    /// HTTP/2: since when each answer waits for its client, or [`NOT_WAITING`]. A closed window never blocks the socket.
    answers: RefCell<Slab<u64>>,
}

/// An answer that waits for the origin, or was not handed over yet.
const NOT_WAITING: u64 = u64::MAX;

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// Nothing happens on it: it may end in good order.
    Idle,
    /// A head was too slow, or the client takes nothing.
    Stuck,
}

impl Meter {
    /// The meter of a connection that was just accepted: its first head has begun.
    pub fn new(ticker: &Rc<Ticker>, limits: &Limits) -> Rc<Meter> {
        let timer = ticker.timer();
        timer.arm(limits.header);
        Rc::new(Meter {
            waiting_since_ms: Cell::new(ticker.now_ms()),
            timer,
            limits: limits.clone(),
            multiplexed: Cell::new(false),
            active: Cell::new(0),
            head_started: Cell::new(true),
            blocked_since_ms: Cell::new(None),
            unblocked_ms: Cell::new(None),
            written: Cell::new(0),
            stalled: Cell::new(false),
            gone: Cell::new(false),
            unflushed: RefCell::default(),
            answers: RefCell::default(),
        })
    }

    /// The connection is HTTP/2.
    pub fn set_multiplexed(&self) {
        self.multiplexed.set(true);
    }

    /// Bytes arrived from the client.
    pub fn on_read(&self) {
        // Window updates and pings are no beginning of a request: only a request prolongs an HTTP/2 connection.
        if self.multiplexed.get() {
            return;
        }
        if self.active.get() == 0 && !self.head_started.get() {
            self.head_started.set(true);
            self.waiting_since_ms.set(self.timer.now_ms());
            self.timer.arm(self.limits.header);
        }
    }

    /// The socket took bytes.
    pub fn on_written(&self, bytes: usize) {
        self.written.set(self.written.get() + bytes as u64);
        if self.blocked_since_ms.take().is_some() {
            self.unblocked_ms.set(Some(self.timer.now_ms()));
        }
    }

    /// The socket takes nothing now.
    pub fn on_blocked(&self) {
        if self.blocked_since_ms.get().is_none() {
            self.blocked_since_ms.set(Some(self.timer.now_ms()));
            self.timer.arm(self.limits.write_stall);
        }
    }

    /// Everything written so far is with the socket.
    pub fn on_flushed(&self) {
        if !self.unflushed.borrow().is_empty() {
            self.unflushed.take().into_iter().for_each(Delivered::flushed);
        }
    }

    /// The socket is gone: what was not flushed did not arrive.
    pub fn on_gone(&self) {
        self.gone.set(true);
        let (written, stalled) = (self.written.get(), self.stalled.get());
        self.unflushed.take().into_iter().for_each(|d| d.gone(written, stalled));
    }

    /// Takes over an answer that ended for the HTTP layer; reported when the socket took its bytes, or is gone.
    pub fn await_flush(&self, delivered: Delivered) {
        if self.gone.get() {
            delivered.gone(self.written.get(), self.stalled.get());
        } else {
            self.unflushed.borrow_mut().push(delivered);
        }
    }

    /// Whether bytes of a head have arrived whose request has not begun; never over HTTP/2, which ends in better order.
    pub fn awaits_head(&self) -> bool {
        !self.multiplexed.get() && self.active.get() == 0 && self.head_started.get()
    }

    /// A request begins.
    pub fn enter(&self) {
        self.active.set(self.active.get() + 1);
        self.head_started.set(false);
        if self.multiplexed.get() {
            self.timer.arm(self.limits.write_stall);
        } else if self.blocked_since_ms.get().is_none() {
            self.timer.disarm();
        }
    }

    /// A request's answer ended.
    pub fn leave(&self) {
        self.active.set(self.active.get().saturating_sub(1));
        if self.active.get() == 0 {
            self.waiting_since_ms.set(self.timer.now_ms());
            if self.blocked_since_ms.get().is_none() {
                self.timer.arm(self.limits.keep_alive);
            }
        }
    }

    /// Begins to follow an answer over HTTP/2; `None` over HTTP/1.1, where the socket tells.
    pub fn follow(&self) -> Option<usize> {
        self.multiplexed.get().then(|| self.answers.borrow_mut().insert(NOT_WAITING))
    }

    /// The answer waits for its client from now (true), or for the origin (false).
    pub fn waits_for_client(&self, answer: usize, waits: bool) {
        if let Some(since) = self.answers.borrow_mut().get_mut(answer) {
            *since = if waits { self.timer.now_ms() } else { NOT_WAITING };
        }
    }

    /// The answer ended.
    pub fn unfollow(&self, answer: usize) {
        self.answers.borrow_mut().try_remove(answer);
    }

    /// Since when the client has kept an answer waiting.
    fn kept_waiting_since_ms(&self) -> Option<u64> {
        let answers = self.answers.borrow();
        let oldest = answers.iter().map(|(_, since)| *since).filter(|since| *since != NOT_WAITING).min();
        oldest.into_iter().chain(self.blocked_since_ms.get()).min()
    }

    /// Ready when the connection has to end: silent too long, a head too slow, or nothing taken for too long.
    pub fn poll_expired(&self, cx: &Context<'_>) -> Poll<Expired> {
        loop {
            std::task::ready!(self.timer.poll_due(cx));
            let now = self.timer.now_ms();
            let kept_waiting = self.kept_waiting_since_ms();
            let (since, limit) = match (kept_waiting, self.active.get()) {
                (Some(since), _) => (since, self.limits.write_stall),
                (None, 0) if self.head_started.get() => (self.waiting_since_ms.get(), self.limits.header),
                (None, 0) => (self.waiting_since_ms.get(), self.limits.keep_alive),
                (None, _) if self.multiplexed.get() => {
                    self.timer.arm(self.limits.write_stall);
                    continue;
                }
                (None, _) => {
                    self.timer.disarm();
                    continue;
                }
            };
            let waited = Duration::from_millis(now.saturating_sub(since));
            if waited >= limit {
                self.stalled.set(kept_waiting.is_some());
                let idle = kept_waiting.is_none() && !self.head_started.get();
                // Whoever gets «idle» has this long to end in good order.
                self.timer.arm(self.limits.header);
                self.head_started.set(true);
                self.waiting_since_ms.set(now);
                return Poll::Ready(if idle { Expired::Idle } else { Expired::Stuck });
            }
            self.timer.arm(limit - waited);
        }
    }

    /// Whether bytes for the client are, or were within the last 5 s, waiting for it to take them.
    pub fn recently_blocked(&self) -> bool {
        let since = self.timer.now_ms().saturating_sub(RECENT.as_millis() as u64);
        self.blocked_since_ms.get().is_some() || self.unblocked_ms.get().is_some_and(|ms| ms >= since)
    }

    /// Bytes that the socket took so far.
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    /// Whether the client was given up because it takes nothing.
    pub fn is_stalled(&self) -> bool {
        self.stalled.get()
    }

    /// Milliseconds since the core started.
    pub fn now_ms(&self) -> u64 {
        self.timer.now_ms()
    }

    /// Requests being served.
    pub fn active(&self) -> u32 {
        self.active.get()
    }
}
