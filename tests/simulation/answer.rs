//! A captured answer on its way over one connection. What becomes of it is decided by the gateway's own [`Tracker`] and
//! [`Meter`]; here it is only said what socket, client and origin do.

use std::{rc::Rc, sync::Arc, time::Duration};

use tollgate::{
    config::{Limits, Rate},
    ledger::store::{Receipt, Store},
    proxy::{body::BodyWatch, delivery::Tracker, meter::Meter, sales::Sales, ticker::Ticker},
};

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

/// Its time stands still: a client that did not read for a moment is one that did not read just now.
pub struct Answer {
    pub receipt: Receipt,
    meter: Rc<Meter>,
    tracker: Tracker,
    /// Its first byte has left.
    pub begun: bool,
}

impl Answer {
    pub fn new(store: Arc<dyn Store>, receipt: Receipt) -> Answer {
        let meter = Meter::new(&Ticker::new(), &LIMITS);
        let sale = Rc::<Sales>::default().begin().unwrap();
        let tracker = Tracker::new(store, (receipt, sale), meter.clone(), false, BodyWatch::default());
        Answer { receipt, meter, tracker, begun: false }
    }

    pub fn begin(&mut self) {
        self.tracker.on_poll();
        self.tracker.on_bytes(100);
        self.meter.on_written(100);
        self.begun = true;
    }

    /// The client stops taking bytes, or takes some again.
    pub fn blocks(&self, blocked: bool) {
        if blocked { self.meter.on_blocked() } else { self.meter.on_written(10) }
    }

    /// The last byte is with the client.
    pub fn complete(mut self) {
        self.tracker.on_end();
        self.meter.on_flushed();
    }

    /// The origin breaks off.
    pub fn cut(mut self) {
        self.tracker.on_poll();
        self.tracker.on_waiting();
        self.tracker.on_origin_cut();
    }

    /// The connection is gone.
    pub fn lost(self) {
        drop(self.tracker);
        self.meter.on_gone();
    }

    /// There was nobody to hand it to.
    pub fn not_sent(mut self) {
        self.tracker.on_not_sent();
    }
}
