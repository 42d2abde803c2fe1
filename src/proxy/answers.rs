//! Answers that were paid by clients who named their payments: the same name and request gets the same answer again.
//!
//! ```text
//! absent -> in flight -> absent      nothing was paid: the name is free again
//!               |  ^
//!               v  |
//!             bound                  money moved, or may have: other payments may not take the name
//!               |
//!               v
//!             stored                 what the client got: status, fields, body
//! ```
//!
//! It is the memory of this process, bounded in all: the oldest goes first, and whoever comes too late is told that the
//! payment is spent, with its receipt. Not money: that is in the books.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Response, StatusCode};
use tokio::sync::watch;

use super::body::AnswerBody;
use crate::payment::key::PaymentKey;

/// What an entry weighs besides its answer, bytes.
const ENTRY_BYTES: usize = 512;

/// A name, of the clients of one route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// The route's name.
    pub route: Arc<str>,
    /// `pay_7d5d747be160e280504c099d984bcfe0`
    pub id: Arc<str>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Payload, method and target.
    pub request: [u8; 32],
    /// SHA-256 of the request's body.
    pub body: [u8; 32],
}

/// An answer as its client got it.
#[derive(Debug)]
pub struct Stored {
    /// The payment.
    pub key: PaymentKey,
    /// Of the answer.
    pub status: StatusCode,
    /// Of the answer, the payment response among them.
    pub headers: HeaderMap,
    /// All of it.
    pub body: Bytes,
}

/// The answers of this process.
#[derive(Debug)]
pub struct Answers {
    table: Mutex<Table>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Name, Entry>,
    /// Those that are not in flight, the oldest first.
    ended: BTreeMap<u64, Name>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    bound: Bound,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Whoever waits is told by the end of the sender.
    InFlight(watch::Sender<()>),
    Ended {
        at: u64,
        answer: Option<Arc<Stored>>,
    },
}

/// What there is under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    No,
    /// This request.
    Same,
    /// Another one.
    Other,
}

/// What comes of a request under a name.
#[derive(Debug)]
pub enum Begin {
    /// It is to be served; the ticket says what became of it.
    First(Ticket),
    /// It was served: this is the answer.
    Done(Arc<Stored>),
    /// It is being served; resolves when that ends.
    Busy(watch::Receiver<()>),
    /// The name stands for another request.
    Other,
}

/// The turn of a request under a name. Dropped, it frees the name, unless it was kept.
#[derive(Debug)]
pub struct Ticket {
    answers: Arc<Answers>,
    name: Name,
    bound: bool,
    answer: Option<Arc<Stored>>,
}

impl Answers {
    /// None yet, and at most so many bytes of them.
    pub fn new(bytes_max: usize) -> Arc<Answers> {
        Arc::new(Answers { table: Mutex::default(), bytes_max })
    }

    /// Whether a name stands for this request, as far as that can be told without its body.
    pub fn knows(&self, name: &Name, request: &[u8; 32]) -> Known {
        match self.lock().entries.get(name) {
            None => Known::No,
            Some(entry) if entry.bound.request == *request => Known::Same,
            Some(_) => Known::Other,
        }
    }

    /// Takes the turn, or says what there is instead.
    pub fn begin(self: &Arc<Self>, name: &Name, bound: Bound) -> Begin {
        let mut table = self.lock();
        let was_bound = match table.entries.get(name).map(|entry| (entry.bound == bound, &entry.state)) {
            None => false,
            Some((false, _)) => return Begin::Other,
            Some((true, State::InFlight(end))) => return Begin::Busy(end.subscribe()),
            Some((true, State::Ended { answer: Some(answer), .. })) => return Begin::Done(answer.clone()),
            Some((true, State::Ended { answer: None, .. })) => true,
        };
        table.remove(name);
        table.entries.insert(name.clone(), Entry { bound, state: State::InFlight(watch::channel(()).0) });
        Begin::First(Ticket { answers: self.clone(), name: name.clone(), bound: was_bound, answer: None })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn remove(&mut self, name: &Name) -> Option<Bound> {
        let entry = self.entries.remove(name)?;
        if let State::Ended { at, answer } = &entry.state {
            self.ended.remove(at);
            self.bytes -= weight(name, answer.as_deref());
        }
        Some(entry.bound)
    }

    /// Ends a request, and makes room for what is left of it.
    fn end(&mut self, name: &Name, is_bound: bool, answer: Option<Arc<Stored>>, bytes_max: usize) {
        let Some(bound) = self.remove(name).filter(|_| is_bound) else { return };
        let answer = answer.filter(|answer| weight(name, Some(answer)) <= bytes_max);
        let bytes = weight(name, answer.as_deref());
        while self.bytes + bytes > bytes_max {
            let Some((_, oldest)) = self.ended.first_key_value() else { return };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
        let at = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.ended.insert(at, name.clone());
        self.entries.insert(name.clone(), Entry { bound, state: State::Ended { at, answer } });
    }
}

fn weight(name: &Name, answer: Option<&Stored>) -> usize {
    let fields = |answer: &Stored| answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let answer = answer.map_or(0, |answer| {
        answer.body.len() + {
            let bytes: usize = fields(answer);
            bytes
        }
    });
    ENTRY_BYTES + name.id.len() + answer
}

impl Ticket {
    /// Money may move from now on: the name is not given to another payment.
    pub fn bind(&mut self) {
        self.bound = true;
    }

    /// No money moved after all.
    pub fn free(&mut self) {
        self.bound = false;
    }

    /// What the client gets, for the next time.
    pub fn store(&mut self, answer: Stored) {
        self.bound = true;
        self.answer = Some(Arc::new(answer));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let answers = self.answers.clone();
        answers.lock().end(&self.name, self.bound, self.answer.take(), answers.bytes_max);
    }
}

impl Stored {
    /// The answer once more.
    pub fn answer(&self) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody::made(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: &str) -> Name {
        Name { route: "r".into(), id: id.into() }
    }

    fn bound(n: u8) -> Bound {
        Bound { request: [n; 32], body: [0; 32] }
    }

    fn stored(bytes: usize) -> Stored {
        let key = PaymentKey::from_bytes(&[1; 17]).unwrap();
        Stored { key, status: StatusCode::OK, headers: HeaderMap::new(), body: vec![0; bytes].into() }
    }

    fn first(answers: &Arc<Answers>, id: &str, n: u8) -> Ticket {
        match answers.begin(&name(id), bound(n)) {
            Begin::First(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_is_free_again_unless_money_may_have_moved() {
        let answers = Answers::new(10_000);
        drop(first(&answers, "a", 1));
        assert_eq!(answers.knows(&name("a"), &[1; 32]), Known::No);
        let mut ticket = first(&answers, "a", 2);
        assert!(matches!(answers.begin(&name("a"), bound(3)), Begin::Other));
        assert!(matches!(answers.begin(&name("a"), Bound { body: [9; 32], ..bound(2) }), Begin::Other));
        ticket.bind();
        drop(ticket);
        assert_eq!(
            (answers.knows(&name("a"), &[2; 32]), answers.knows(&name("a"), &[3; 32])),
            (Known::Same, Known::Other)
        );
        assert_eq!(answers.knows(&Name { route: "other".into(), ..name("a") }, &[3; 32]), Known::No);
        // Bound without an answer: it may be tried again, by the same request, and stays bound.
        drop(first(&answers, "a", 2));
        let mut ticket = first(&answers, "a", 2);
        ticket.free();
        drop(ticket);
        assert_eq!(answers.knows(&name("a"), &[3; 32]), Known::No);
        assert_eq!(answers.lock().bytes, 0);
    }

    #[tokio::test]
    async fn a_twin_waits_for_the_end_and_gets_the_same() {
        let answers = Answers::new(10_000);
        let mut ticket = first(&answers, "a", 1);
        let Begin::Busy(mut end) = answers.begin(&name("a"), bound(1)) else { panic!("not busy") };
        ticket.store(stored(3));
        drop(ticket);
        assert!(end.changed().await.is_err(), "the first has ended");
        let Begin::Done(answer) = answers.begin(&name("a"), bound(1)) else { panic!("not stored") };
        assert_eq!(answer.body.len(), 3);
    }

    #[test]
    fn the_oldest_goes_when_room_is_needed_and_what_is_in_flight_stays() {
        let answers = Answers::new(2 * (ENTRY_BYTES + 101) + 50);
        let busy = first(&answers, "x", 1);
        for id in ["a", "b", "c"] {
            first(&answers, id, 1).store(stored(100));
        }
        let known = |id: &str| answers.knows(&name(id), &[1; 32]);
        assert_eq!(["a", "b", "c", "x"].map(known), [Known::No, Known::Same, Known::Same, Known::Same]);
        // One that alone is too large keeps its name.
        first(&answers, "d", 1).store(stored(10_000));
        assert!(matches!(answers.begin(&name("d"), bound(2)), Begin::Other));
        drop(busy);
        let table = answers.lock();
        assert!(table.bytes <= answers.bytes_max && table.ended.len() == table.entries.len());
        drop(table);
        let none = Answers::new(0);
        first(&none, "a", 1).store(stored(0));
        assert_eq!(none.knows(&name("a"), &[1; 32]), Known::No);
    }
}
