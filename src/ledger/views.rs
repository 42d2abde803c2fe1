//! The thread that reads the books for agents, beside the writer: one question at a time, on a connection of its own.
//!
//! It begins with the first question. What waits is bounded, and a question whose time is over is not looked at any more; whoever
//! asks is told that the books can't be read now, whatever failed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

use super::{
    location::Location,
    mailbox::{Filled, Ticket},
    read::LedgerReader,
    store::Unavailable,
};
use crate::clock::Clock;

/// Questions that may wait.
const QUESTIONS_MAX: usize = 32;
/// How long whoever asks waits.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// The connection is given up when nobody has asked for so long.
const IDLE: Duration = Duration::from_secs(60);

/// What is looked up in the books.
pub trait Question: Send + 'static {
    /// What it is answered with.
    type Answer: Send + 'static;

    /// The answer.
    ///
    /// # Errors
    /// Says what failed.
    fn look(&self, reader: &LedgerReader) -> Result<Self::Answer, String>;
}

type Answered<Q> = Result<<Q as Question>::Answer, Unavailable>;

/// The way to the thread.
pub struct Views<Q: Question> {
    location: Location,
    clock: Clock,
    thread: Mutex<Option<SyncSender<Asked<Q>>>>,
}

struct Asked<Q: Question> {
    question: Q,
    until_ms: u64,
    ticket: Answer<Q>,
}

/// Dropped without a word (the thread panicked), it says unavailable.
struct Answer<Q: Question>(Option<Arc<Ticket<Answered<Q>>>>);

impl<Q: Question> Answer<Q> {
    fn fill(mut self, answer: Answered<Q>) {
        if let Some(ticket) = self.0.take() {
            ticket.fill(answer);
        }
    }
}

impl<Q: Question> Drop for Answer<Q> {
    fn drop(&mut self) {
        if let Some(ticket) = self.0.take() {
            ticket.fill(Err(Unavailable("nobody reads the books".into())));
        }
    }
}

impl<Q: Question> Views<Q> {
    /// Of this ledger; nothing is opened before somebody asks.
    pub fn new(location: Location, clock: Clock) -> Arc<Views<Q>> {
        Arc::new(Views { location, clock, thread: Mutex::default() })
    }

    /// Asks; the future resolves within [`PATIENCE`] or a little later, and may be dropped.
    ///
    /// # Errors
    /// The books can't be read, or too many ask.
    pub fn ask(&self, question: Q) -> impl Future<Output = Answered<Q>> + Send + use<Q> {
        let ticket = Ticket::new();
        let until_ms = self.clock.now_ms().saturating_add(PATIENCE.as_millis() as u64);
        self.send(Asked { question, until_ms, ticket: Answer(Some(ticket.clone())) });
        Filled(ticket)
    }

    fn send(&self, asked: Asked<Q>) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = match &*thread {
            Some(sender) => match sender.try_send(asked) {
                Ok(()) => return,
                Err(TrySendError::Full(asked)) => {
                    return asked.ticket.fill(Err(Unavailable("too many ask the books".into())));
                }
                Err(TrySendError::Disconnected(asked)) => asked,
            },
            None => asked,
        };
        let (sender, questions) = mpsc::sync_channel(QUESTIONS_MAX);
        // There is room: it is new.
        _ = sender.try_send(asked);
        let (location, clock) = (self.location.clone(), self.clock.clone());
        let run = move || run(&location, &clock, &questions);
        // Without a thread the question is dropped with its channel, which answers it.
        *thread = thread::Builder::new().name("views".to_owned()).spawn(run).ok().map(|_| sender);
    }
}

fn run<Q: Question>(location: &Location, clock: &Clock, questions: &Receiver<Asked<Q>>) {
    let mut reader: Option<LedgerReader> = None;
    loop {
        let asked = match questions.recv_timeout(IDLE) {
            Ok(asked) => asked,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                reader = None;
                // Nothing is held meanwhile.
                let Ok(asked) = questions.recv() else { return };
                asked
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        };
        let Asked { question, until_ms, ticket } = asked;
        if clock.now_ms() > until_ms {
            ticket.fill(Err(Unavailable("reading the books takes too long".into())));
            continue;
        }
        let answer = look(location, &mut reader, &question);
        if answer.is_err() {
            // The file may be another one by now, the connection over.
            reader = None;
        }
        ticket.fill(answer);
    }
}

fn look<Q: Question>(location: &Location, reader: &mut Option<LedgerReader>, question: &Q) -> Answered<Q> {
    let failed = |what: String| {
        tracing::warn!(what, "the books can't be read for an agent");
        Unavailable("the books can't be read now".into())
    };
    let open = match reader {
        Some(open) if !open.has_ended() => open,
        reader => reader.insert(LedgerReader::open(location.clone()).map_err(|error| failed(error.to_string()))?),
    };
    question.look(open).map_err(failed)
}
