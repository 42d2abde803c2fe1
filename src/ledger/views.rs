//! Threads that read the books beside the writer, each one question at a time, on a connection of its own: `views` for what agents are
//! shown, which may take its time, and `lookups` for what a payment waits for.
//!
//! Each begins with its first question. What waits is bounded, and a question whose time is over is not looked at any more; whoever
//! asks is told that the books can't be read now, whatever failed.

use std::{
    fmt,
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
    read::{LedgerReader, ReadError},
    store::Unavailable,
    view::{Question, View},
};
use crate::clock::Clock;

/// Views that may wait.
pub const VIEWS_MAX: usize = 32;
/// Look-ups that may wait: each is a few searches by key.
pub const LOOKUPS_MAX: usize = 4096;
/// How long whoever asks waits.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// What those who ask are told, whatever failed.
const UNREADABLE: &str = "the books can't be read now";
/// The connection is given up when nobody has asked for so long.
const IDLE: Duration = Duration::from_secs(60);

/// Reads, and leaves the answer where it is waited for; false where the reader is of no more use. Dropped, it says that nobody
/// reads.
type Job = Box<dyn FnOnce(Result<&LedgerReader, &'static str>) -> bool + Send>;

/// The way to such a thread.
pub struct Views {
    location: Location,
    clock: Clock,
    name: &'static str,
    most: usize,
    thread: Mutex<Option<SyncSender<Asked>>>,
}

struct Asked {
    until_ms: u64,
    job: Job,
}

/// Dropped without a word (the thread panicked), it says unavailable.
struct Answer<T>(Option<Arc<Ticket<Result<T, Unavailable>>>>);

impl<T> Answer<T> {
    fn fill(mut self, answer: Result<T, Unavailable>) {
        if let Some(ticket) = self.0.take() {
            ticket.fill(answer);
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.0.take() {
            ticket.fill(Err(Unavailable("nobody reads the books".into())));
        }
    }
}

impl Views {
    /// For what agents are shown of this ledger; nothing is opened before somebody asks.
    pub fn new(location: Location, clock: Clock) -> Arc<Views> {
        Arc::new(Views { location, clock, name: "views", most: VIEWS_MAX, thread: Mutex::default() })
    }

    /// For what a payment waits for.
    pub fn lookups(location: Location, clock: Clock) -> Arc<Views> {
        Arc::new(Views { location, clock, name: "lookups", most: LOOKUPS_MAX, thread: Mutex::default() })
    }

    /// What an agent is shown.
    ///
    /// # Errors
    /// As [`Views::read`].
    pub fn ask(&self, question: Question) -> impl Future<Output = Result<View, Unavailable>> + Send + use<> {
        self.read(move |reader| reader.view(&question))
    }

    /// Reads. What waits longer than [`PATIENCE`] is not read any more; whoever asks holds the clock himself against a disk or a
    /// server that hangs, and may drop the future.
    ///
    /// # Errors
    /// The books can't be read, or too many ask.
    pub fn read<T: Send + 'static, R: FnOnce(&LedgerReader) -> Result<T, ReadError> + Send + 'static>(
        &self,
        read: R,
    ) -> impl Future<Output = Result<T, Unavailable>> + Send + use<T, R> {
        let ticket = Ticket::new();
        let answer = Answer(Some(ticket.clone()));
        let job = move |reader: Result<&LedgerReader, &'static str>| {
            let found = match reader {
                Ok(reader) => read(reader).map_err(|error| unreadable(&error)),
                Err(why) => Err(Unavailable(why.into())),
            };
            let is_well = found.is_ok();
            answer.fill(found);
            is_well
        };
        let until_ms = self.clock.now_ms().saturating_add(PATIENCE.as_millis() as u64);
        self.send(Asked { until_ms, job: Box::new(job) });
        Filled(ticket)
    }

    fn send(&self, asked: Asked) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = match &*thread {
            Some(sender) => match sender.try_send(asked) {
                Ok(()) => return,
                Err(TrySendError::Full(asked)) => {
                    (asked.job)(Err("too many ask the books"));
                    return;
                }
                Err(TrySendError::Disconnected(asked)) => asked,
            },
            None => asked,
        };
        let (sender, questions) = mpsc::sync_channel(self.most);
        // There is room: it is new.
        _ = sender.try_send(asked);
        let (location, clock) = (self.location.clone(), self.clock.clone());
        let run = move || run(&location, &clock, &questions);
        // Without a thread the question is dropped with its channel, which answers it.
        *thread = thread::Builder::new().name(self.name.to_owned()).spawn(run).ok().map(|_| sender);
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
        if clock.now_ms() > asked.until_ms {
            (asked.job)(Err("reading the books takes too long"));
            continue;
        }
        if !look(location, &mut reader, asked.job) {
            // The file may be another one by now, the connection over.
            reader = None;
        }
    }
}

fn look(location: &Location, reader: &mut Option<LedgerReader>, job: Job) -> bool {
    let open = match reader {
        Some(open) if !open.has_ended() => open,
        reader => match LedgerReader::open(location.clone()) {
            Ok(open) => reader.insert(open),
            Err(error) => {
                unreadable(&error);
                return job(Err(UNREADABLE));
            }
        },
    };
    job(Ok(open))
}

fn unreadable(error: &impl fmt::Display) -> Unavailable {
    tracing::warn!(%error, "the books can't be read beside the writer");
    Unavailable(UNREADABLE.into())
}
