//! How far a long command is.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Says how far it is: on a terminal in place, else a line every few seconds.
pub(super) struct Progress {
    /// What is counted.
    what: &'static str,
    terminal: bool,
    next: Instant,
    shown: bool,
}

impl Progress {
    pub(super) fn new(what: &'static str) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        // Short audits say nothing.
        Progress { what, terminal, next: Instant::now() + Duration::from_secs(1), shown: false }
    }

    pub(super) fn step(&mut self, done: u64, total: u64) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let mut err = std::io::stderr();
        if self.terminal {
            self.next = now + Duration::from_millis(200);
            self.shown = true;
            let _ = write!(err, "\r{done} of {total} {}\u{1b}[K", self.what);
        } else {
            self.next = now + Duration::from_secs(5);
            let _ = writeln!(err, "{done} of {total} {}", self.what);
        }
    }

    pub(super) fn end(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}
