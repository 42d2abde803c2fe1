//! What became of a paid answer after its capture: complete, client left, client stalled, origin cut,
//! not sent. Where the bytes leave doubt, the charge stands.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::body::BodyWatch;
use super::meter::Meter;
use super::sales::Sale;
use crate::ledger::store::{Delivery, Outcome, Outcomes, Receipt};

/// A gap between two reads of the body this long counts as a client that did not take bytes.
const GAP: Duration = Duration::from_millis(200);
const RECENT_MS: u64 = 5_000;

/// Follows one captured answer to its end; dropped without an end, it reports that the client left.
pub struct Tracker {
    record: Option<Record>,
    meter: Rc<Meter>,
    /// The request's body: a client that breaks it off breaks the origin's answer off, too.
    upload: BodyWatch,
    /// Frames count, not socket bytes: several answers share the socket.
    multiplexed: bool,
    /// The last poll of the body had to wait for the origin.
    waiting_for_origin: bool,
    /// When the body was last taken from.
    taken_ms: u64,
    /// When a gap ended in which the client side did not ask for bytes.
    gap_ms: Option<u64>,
    polled: bool,
    /// The last byte went on to the HTTP layer.
    ended: bool,
    /// How many bytes at its beginning were bought; `None` where all of them were.
    bought: Option<u64>,
}

/// What is reported in the end.
pub struct Record {
    store: Arc<dyn Outcomes>,
    receipt: Receipt,
    /// Keeps the books until it is reported.
    _sale: Sale,
    started_ms: u64,
    /// Socket bytes before the answer.
    written_before: u64,
    bytes: u64,
}

/// An answer that ended for the HTTP layer; what is left is the socket.
pub struct Delivered {
    record: Record,
    /// The HTTP layer took the last byte.
    whole: bool,
    now_ms: u64,
}

impl Tracker {
    /// Starts when the answer is handed to the client's connection.
    pub fn new(
        store: Arc<dyn Outcomes>,
        (receipt, sale): (Receipt, Sale),
        meter: Rc<Meter>,
        multiplexed: bool,
        upload: BodyWatch,
    ) -> Tracker {
        let (started_ms, written_before) = (meter.now_ms(), meter.written());
        let record = Some(Record { store, receipt, _sale: sale, started_ms, written_before, bytes: 0 });
        Tracker {
            record,
            multiplexed,
            waiting_for_origin: false,
            taken_ms: started_ms,
            gap_ms: None,
            polled: false,
            ended: false,
            bought: None,
            upload,
            meter,
        }
    }

    /// The same for an event stream that begins with the result of a call: what comes behind it was not bought.
    pub fn of_result(mut self, bytes: Option<usize>) -> Tracker {
        self.bought = bytes.map(|bytes| bytes as u64);
        self
    }

    /// The client side asks for the next bytes.
    pub fn on_poll(&mut self) {
        let now = self.meter.now_ms();
        if self.polled && !self.waiting_for_origin && now.saturating_sub(self.taken_ms) > GAP.as_millis() as u64 {
            self.gap_ms = Some(now);
        }
        self.polled = true;
    }

    /// The origin has nothing yet.
    pub fn on_waiting(&mut self) {
        self.waiting_for_origin = true;
    }

    /// Bytes went on to the client side.
    pub fn on_bytes(&mut self, bytes: usize) {
        self.waiting_for_origin = false;
        self.taken_ms = self.meter.now_ms();
        if let Some(record) = &mut self.record {
            record.bytes += bytes as u64;
        }
    }

    /// The last byte went on.
    pub fn on_end(&mut self) {
        self.ended = true;
        // HTTP/2 drops the body once it has sent the last frame; HTTP/1.1 tells when the socket took it.
        if !self.multiplexed
            && let Some(record) = self.record.take()
        {
            let now_ms = self.meter.now_ms();
            self.meter.await_flush(Delivered { record, whole: true, now_ms });
        }
    }

    /// The answer never reached the client's connection: reversed.
    pub fn on_not_sent(&mut self) {
        if let Some(record) = self.record.take() {
            record.report(Delivery::NotSent, true, self.meter.now_ms());
        }
    }

    /// The origin broke off or stalled. The charge is reversed only if nothing was waiting for the client, and not once it
    /// has what it bought: the HTTP layer writes what it was given when it is told to wait, and else drops it at the cut.
    pub fn on_origin_cut(&mut self) {
        let Some(record) = self.record.take() else { return };
        let now_ms = self.meter.now_ms();
        let gap = self.gap_ms.is_some_and(|ms| now_ms.saturating_sub(ms) <= RECENT_MS);
        let clients_doing = self.upload.open.get() || self.upload.fault.get().is_some();
        let lost = match self.bought {
            Some(bytes) if record.bytes >= bytes => {
                !self.waiting_for_origin && (self.multiplexed || self.meter.written() == record.written_before)
            }
            _ => self.waiting_for_origin,
        };
        let void = lost && !gap && !clients_doing && !self.meter.recently_blocked();
        record.report(Delivery::OriginCut, void, now_ms);
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        let now_ms = self.meter.now_ms();
        if self.multiplexed {
            let delivery = match (self.ended, self.meter.is_stalled()) {
                (true, _) => Delivery::Complete,
                (false, true) => Delivery::ClientStalled,
                (false, false) => Delivery::ClientLeft,
            };
            record.report(delivery, false, now_ms);
        } else {
            // Whether a byte was written is known at the next flush, or when the socket is gone.
            self.meter.await_flush(Delivered { record, whole: false, now_ms });
        }
    }
}

impl Delivered {
    /// The socket took all bytes that there were.
    pub fn flushed(self) {
        let delivery = if self.whole { Delivery::Complete } else { Delivery::ClientLeft };
        self.record.report(delivery, false, self.now_ms);
    }

    /// The client is gone, or the answer was dropped; `written` is what the socket took in all.
    pub fn gone(self, written: u64, stalled: bool) {
        let (delivery, void) = match (written == self.record.written_before, stalled) {
            (true, _) => (Delivery::NotSent, true),
            (false, true) => (Delivery::ClientStalled, false),
            (false, false) => (Delivery::ClientLeft, false),
        };
        self.record.report(delivery, void, self.now_ms);
    }
}

impl std::fmt::Debug for Delivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Delivered({})", self.record.receipt.n)
    }
}

impl Record {
    fn report(self, delivery: Delivery, void: bool, now_ms: u64) {
        let ms = u32::try_from(now_ms.saturating_sub(self.started_ms)).unwrap_or(u32::MAX);
        self.store.outcome(Outcome { n: self.receipt.n, delivery, void, ms, bytes: self.bytes });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::sleep;

    use super::super::body::Fault;
    use super::super::sales::Sales;
    use super::super::ticker::Ticker;
    use super::*;
    use crate::config::{Limits, Rate};

    /// Keeps the outcomes that are reported.
    #[derive(Default)]
    struct Recording(Mutex<Vec<Outcome>>);

    impl Outcomes for Recording {
        fn outcome(&self, outcome: Outcome) {
            self.0.lock().unwrap().push(outcome);
        }
    }

    const LIMITS: Limits = Limits {
        tunnel_idle: Duration::from_secs(300),
        tunnel: Duration::ZERO,
        header_bytes: 65_536,
        header_count: 100,
        url_bytes: 8192,
        header: Duration::from_secs(10),
        keep_alive: Duration::from_secs(75),
        body_idle: Duration::from_secs(15),
        body_min_rate: 500,
        write_stall: Duration::from_secs(30),
        connections: 10,
        failures: Rate { per_minute: 0, burst: 1 },
        agent_requests: Rate { per_minute: 0, burst: 1 },
        requests_in_flight: 10,
    };

    /// An answer over HTTP/1.1 whose first bytes went on; `cut` runs until the origin cuts it. Whether the charge is reversed.
    async fn voided<F: Future<Output = ()>>(cut: impl FnOnce(Rc<Meter>, Tracker) -> F) -> bool {
        let (store, ticker) = (Arc::new(Recording::default()), Ticker::new());
        tokio::task::LocalSet::new()
            .run_until(async {
                tokio::task::spawn_local(ticker.clone().run());
                let meter = Meter::new(&ticker, &LIMITS);
                let sale = Rc::<Sales>::default().begin().unwrap();
                let sold = (Receipt { n: 1, at_ms: 0 }, sale);
                let mut tracker = Tracker::new(store.clone(), sold, meter.clone(), false, BodyWatch::default());
                tracker.on_poll();
                tracker.on_bytes(100);
                meter.on_written(100);
                cut(meter, tracker).await;
            })
            .await;
        let outcomes = store.0.lock().unwrap();
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        assert_eq!((outcomes[0].delivery, outcomes[0].bytes), (Delivery::OriginCut, 100));
        outcomes[0].void
    }

    /// The client asks for more, the origin has nothing yet, then breaks off.
    fn wait_and_cut(tracker: &mut Tracker) {
        tracker.on_poll();
        tracker.on_waiting();
        tracker.on_origin_cut();
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_is_not_charged_to_a_client_that_was_waiting() {
        assert!(voided(|_, mut tracker| async move { wait_and_cut(&mut tracker) }).await);
        let long = |_, mut tracker: Tracker| async move {
            tracker.on_poll();
            tracker.on_waiting();
            sleep(Duration::from_secs(60)).await;
            tracker.on_poll();
            tracker.on_origin_cut();
        };
        assert!(voided(long).await, "however long it waited");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_behind_a_result_is_charged_once_the_result_was_written() {
        let given = |_, tracker: Tracker| async move { wait_and_cut(&mut tracker.of_result(Some(100))) };
        assert!(!voided(given).await);
        let in_part = |_, tracker: Tracker| async move { wait_and_cut(&mut tracker.of_result(Some(101))) };
        assert!(voided(in_part).await);
        // Seen before the HTTP layer could write anything, or after it had.
        let at_once = |unwritten: u64, multiplexed| {
            move |_, tracker: Tracker| async move {
                let mut tracker = tracker.of_result(Some(100));
                tracker.multiplexed = multiplexed;
                tracker.record.as_mut().unwrap().written_before = unwritten;
                tracker.on_poll();
                tracker.on_origin_cut();
            }
        };
        assert!(voided(at_once(100, false)).await, "nothing was written since");
        assert!(!voided(at_once(0, false)).await, "it was written");
        assert!(voided(at_once(0, true)).await, "a stream that is reset drops what it has");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_is_charged_while_the_socket_takes_nothing_and_for_five_seconds_after() {
        let blocked = |meter: Rc<Meter>, mut tracker: Tracker| async move {
            meter.on_blocked();
            wait_and_cut(&mut tracker);
        };
        assert!(!voided(blocked).await, "bytes for the client are unsent");
        let after = |ms| {
            move |meter: Rc<Meter>, mut tracker: Tracker| async move {
                // Asked for in time: only the socket tells of the stall.
                tracker.on_poll();
                tracker.on_waiting();
                meter.on_blocked();
                sleep(Duration::from_secs(2)).await;
                meter.on_written(100);
                sleep(Duration::from_millis(ms)).await;
                tracker.on_origin_cut();
            }
        };
        assert!(!voided(after(4_800)).await, "a stall ended less than 5 s ago");
        assert!(voided(after(5_300)).await, "a stall long past");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_is_charged_after_a_gap_in_which_the_client_side_asked_for_nothing() {
        let after = |ms| {
            move |_, mut tracker: Tracker| async move {
                sleep(Duration::from_secs(1)).await;
                tracker.on_poll();
                tracker.on_waiting();
                sleep(Duration::from_millis(ms)).await;
                tracker.on_origin_cut();
            }
        };
        assert!(!voided(after(4_800)).await);
        assert!(voided(after(5_300)).await);
        // The cut itself was only seen when the client asked again.
        let seen_late = |_, mut tracker: Tracker| async move {
            tracker.on_poll();
            tracker.on_origin_cut();
        };
        assert!(!voided(seen_late).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_is_charged_when_the_client_broke_its_own_request_off() {
        let unfinished = |_, mut tracker: Tracker| async move {
            tracker.upload.open.set(true);
            wait_and_cut(&mut tracker);
        };
        assert!(!voided(unfinished).await);
        let broken = |_, mut tracker: Tracker| async move {
            tracker.upload.fault.set(Some(Fault::Broken));
            wait_and_cut(&mut tracker);
        };
        assert!(!voided(broken).await);
    }
}
