//! SHA-256 of a request's body while it streams by: what a payment that comes back is held against.

use std::cell::RefCell;

use sha2::{Digest, Sha256};

use crate::ledger::evidence::BodyDigest;

/// The running digest of one body.
#[derive(Debug, Default)]
pub struct Digesting(RefCell<State>);

#[derive(Debug, Default)]
enum State {
    /// There is no body, or nobody asks.
    #[default]
    Off,
    Running(Sha256),
    Done([u8; 32]),
}

impl Digesting {
    /// Counts from now on; before the first byte.
    pub fn start(&self) {
        let mut state = self.0.borrow_mut();
        if matches!(*state, State::Off) {
            *state = State::Running(Sha256::new());
        }
    }

    /// Bytes that went by.
    pub fn feed(&self, bytes: &[u8]) {
        if let State::Running(hash) = &mut *self.0.borrow_mut() {
            hash.update(bytes);
        }
    }

    /// The body has ended.
    pub fn finish(&self) {
        let state = std::mem::take(&mut *self.0.borrow_mut());
        *self.0.borrow_mut() = match state {
            State::Running(hash) => State::Done(hash.finalize().into()),
            other => other,
        };
    }

    /// What is known of the body by now.
    pub fn known(&self) -> BodyDigest {
        match &*self.0.borrow() {
            State::Off => BodyDigest::Empty,
            State::Running(_) => BodyDigest::Unknown,
            State::Done(digest) => BodyDigest::Sha256(*digest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_a_digest_once_it_has_ended() {
        let digesting = Digesting::default();
        digesting.feed(b"not counted");
        digesting.finish();
        assert_eq!(digesting.known(), BodyDigest::Empty);
        digesting.start();
        digesting.feed(b"ab");
        digesting.start();
        digesting.feed(b"c");
        assert_eq!(digesting.known(), BodyDigest::Unknown);
        digesting.finish();
        digesting.feed(b"late");
        assert_eq!(digesting.known(), BodyDigest::Sha256(Sha256::digest(b"abc").into()));
    }
}
