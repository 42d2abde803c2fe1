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
    view::{Question, View},
};
use crate::clock::Clock;

/// Questions that may wait.
const QUESTIONS_MAX: usize = 32;
/// How long whoever asks waits.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// The connection is given up when nobody has asked for so long.
const IDLE: Duration = Duration::from_secs(60);

type Answered = Result<View, Unavailable>;

/// The way to the thread.
pub struct Views {
    location: Location,
    clock: Clock,
    thread: Mutex<Option<SyncSender<Asked>>>,
}

struct Asked {
    question: Question,
    until_ms: u64,
    ticket: Answer,
}

/// Dropped without a word (the thread panicked), it says unavailable.
struct Answer(Option<Arc<Ticket<Answered>>>);

impl Answer {
    fn fill(mut self, answer: Answered) {
        if let Some(ticket) = self.0.take() {
            ticket.fill(answer);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(ticket) = self.0.take() {
            ticket.fill(Err(Unavailable("nobody reads the books".into())));
        }
    }
}

impl Views {
    /// Of this ledger; nothing is opened before somebody asks.
    pub fn new(location: Location, clock: Clock) -> Arc<Views> {
        Arc::new(Views { location, clock, thread: Mutex::default() })
    }

    /// Asks; the future resolves within [`PATIENCE`] or a little later, and may be dropped.
    ///
    /// # Errors
    /// The books can't be read, or too many ask.
    pub fn ask(&self, question: Question) -> impl Future<Output = Answered> + Send + use<> {
        let ticket = Ticket::new();
        let until_ms = self.clock.now_ms().saturating_add(PATIENCE.as_millis() as u64);
        self.send(Asked { question, until_ms, ticket: Answer(Some(ticket.clone())) });
        Filled(ticket)
    }

    fn send(&self, asked: Asked) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = match &*thread {
            Some(sender) => match sender.try_send(asked) {
                Ok(()) => return,
                Err(TrySendError::Full(asked)) => {
                    return asked.ticket.fill(Err(Unavailable("too many ask for their accounts".into())));
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

fn run(location: &Location, clock: &Clock, questions: &Receiver<Asked>) {
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

fn look(location: &Location, reader: &mut Option<LedgerReader>, question: &Question) -> Answered {
    let failed = |what: String| {
        tracing::warn!(what, "the books can't be read for an agent");
        Unavailable("the books can't be read now".into())
    };
    let open = match reader {
        Some(open) if !open.has_ended() => open,
        reader => reader.insert(LedgerReader::open(location.clone()).map_err(|error| failed(error.to_string()))?),
    };
    open.view(question).map_err(|error| failed(error.to_string()))
}
