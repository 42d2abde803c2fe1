//! Whether a body is the one whose digest was signed, told while it streams by.
//!
//! ```text
//! state     the body                            the origin            the payment
//! ------------------------------------------------------------------------------------------------------------
//! off       nobody asks                         gets it               as the answer says
//! running   some of it has come                 gets what came        waits, also when the answer's head is here
//! fits      all of it has come                  gets the last of it   as the answer says
//! differs   all of it has come                  never gets the last   released, 400
//! gone      its end was not waited for: the     -                     released, 4xx or 5xx by whose fault it was
//!           client or the origin broke off
//! ```

use std::cell::RefCell;

use tokio::sync::Notify;

use crate::wire::content_digest::{Checking, ContentDigest};

/// The check of one body.
#[derive(Debug, Default)]
pub struct SignedContent {
    state: RefCell<State>,
    moved: Notify,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Off,
    Running(Box<Checking>),
    Ended(Fit),
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is the body that was signed for, or nobody asks.
    Fits,
    /// It is another.
    Differs,
    /// It was not read to its end.
    Gone,
}

impl SignedContent {
    /// Checks from now on; before the first byte.
    pub fn expect(&self, digest: &ContentDigest) {
        *self.state.borrow_mut() = State::Running(Box::new(digest.check()));
    }

    /// Bytes that are about to go by.
    pub fn feed(&self, bytes: &[u8]) {
        if let State::Running(check) = &mut *self.state.borrow_mut() {
            check.feed(bytes);
        }
    }

    /// The body has ended; whether it may.
    pub fn finish(&self) -> bool {
        self.end(|check| if check.fits() { Fit::Fits } else { Fit::Differs });
        self.known() == Some(Fit::Fits)
    }

    /// Nobody reads the body any more.
    pub fn give_up(&self) {
        self.end(|_| Fit::Gone);
    }

    fn end(&self, how: impl FnOnce(Checking) -> Fit) {
        let mut state = self.state.borrow_mut();
        match std::mem::take(&mut *state) {
            State::Running(check) => {
                *state = State::Ended(how(*check));
                self.moved.notify_one();
            }
            other => *state = other,
        }
    }

    /// How it ended; `None` while it runs.
    pub fn known(&self) -> Option<Fit> {
        match &*self.state.borrow() {
            State::Off => Some(Fit::Fits),
            State::Running(_) => None,
            State::Ended(fit) => Some(*fit),
        }
    }

    /// Resolves when it may have ended; for one who waits.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }
}
