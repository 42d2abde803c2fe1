//! Answers of the writer: one wake for each core and batch, however many captures wait there.
//!
//! A wake of another thread's runtime is a system call. With a mailbox on the core, the writer leaves all results of a
//! batch under one lock, wakes the core's driver once, and the driver wakes the waiting tasks at home, which is cheap.

use std::{
    cell::RefCell,
    future::Future,
    marker::PhantomData,
    mem,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::store::{CaptureError, Receipt, Unavailable};

/// What a capture resolves to.
pub(super) type CaptureResult = Result<Receipt, CaptureError>;

thread_local! {
    static MAILBOX: RefCell<Option<Arc<Mailbox>>> = const { RefCell::new(None) };
}

/// A thread's letters from the writer.
pub struct Mailbox(Mutex<Letters>);

struct Letters {
    ready: Vec<Letter>,
    driver: Option<Waker>,
    closed: bool,
}

impl Mailbox {
    /// Gives this thread a mailbox; captures made on it from now on are answered through the returned future, which must
    /// be spawned on this thread (`spawn_local`) and runs until it is dropped.
    pub fn install() -> Driver {
        let letters = Letters { ready: Vec::new(), driver: None, closed: false };
        let mailbox = Arc::new(Mailbox(Mutex::new(letters)));
        MAILBOX.with(|slot| *slot.borrow_mut() = Some(mailbox.clone()));
        Driver { mailbox, emptied: Vec::new(), this_thread: PhantomData }
    }

    /// The mailbox of this thread.
    pub(super) fn current() -> Option<Arc<Mailbox>> {
        MAILBOX.with(|slot| slot.borrow().clone())
    }

    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands the writer's answers to the tasks of its thread.
pub struct Driver {
    mailbox: Arc<Mailbox>,
    emptied: Vec<Letter>,
    this_thread: PhantomData<Rc<()>>,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut emptied = mem::take(&mut self.emptied);
        {
            let mut letters = self.mailbox.lock();
            mem::swap(&mut letters.ready, &mut emptied);
            // Set under the same lock as the look: a letter that comes later wakes us again.
            match &mut letters.driver {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        for (ticket, result) in emptied.drain(..) {
            ticket.fill(result);
        }
        self.emptied = emptied;
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let left = {
            let mut letters = self.mailbox.lock();
            letters.closed = true;
            mem::take(&mut letters.ready)
        };
        for (ticket, result) in left {
            ticket.fill(result);
        }
        // The thread may be ending, its locals gone.
        let _ = MAILBOX.try_with(|slot| {
            slot.borrow_mut().take_if(|current| Arc::ptr_eq(current, &self.mailbox));
        });
    }
}

/// One answer on its way, from the writer to the task that waits.
pub(super) struct Ticket<T>(Mutex<Waiting<T>>);

struct Waiting<T> {
    result: Option<T>,
    waker: Option<Waker>,
    /// Takes the result when nobody waits for it any more.
    heir: Option<Heir<T>>,
}

type Heir<T> = Box<dyn FnOnce(T) + Send>;

impl<T> Ticket<T> {
    pub(super) fn new() -> Arc<Ticket<T>> {
        Arc::new(Ticket(Mutex::new(Waiting { result: None, waker: None, heir: None })))
    }

    /// Leaves the result and wakes the task.
    pub(super) fn fill(&self, result: T) {
        let mut waiting = self.lock();
        if let Some(heir) = waiting.heir.take() {
            drop(waiting);
            return heir(result);
        }
        waiting.result = Some(result);
        let waker = waiting.waker.take();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Nobody will ask any more: the result goes to `heir`, now if it is there, else when it comes.
    pub(super) fn bequeath(&self, heir: Heir<T>) {
        let mut waiting = self.lock();
        match waiting.result.take() {
            Some(result) => {
                drop(waiting);
                heir(result);
            }
            None => waiting.heir = Some(heir),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a ticket to be filled.
pub(super) struct Filled<T>(pub(super) Arc<Ticket<T>>);

impl<T> Future for Filled<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut waiting = self.0.lock();
        match waiting.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Waits for something that somebody must see to. Dropped before it has said so, it leaves the result to `heir`.
pub(super) struct Lent<T: Send + 'static, H: FnOnce(T) + Send + 'static> {
    filled: Filled<T>,
    heir: Option<H>,
}

impl<T: Send + 'static, H: FnOnce(T) + Send + 'static> Lent<T, H> {
    pub(super) fn new(filled: Filled<T>, heir: H) -> Lent<T, H> {
        Lent { filled, heir: Some(heir) }
    }
}

// Nothing in it is pinned.
impl<T: Send + 'static, H: FnOnce(T) + Send + 'static> Unpin for Lent<T, H> {}

impl<T: Send + 'static, H: FnOnce(T) + Send + 'static> Future for Lent<T, H> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let result = std::task::ready!(Pin::new(&mut self.filled).poll(cx));
        self.heir = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static, H: FnOnce(T) + Send + 'static> Drop for Lent<T, H> {
    fn drop(&mut self) {
        if let Some(heir) = self.heir.take() {
            self.filled.0.bequeath(Box::new(heir));
        }
    }
}

/// The writer's end of a posting; dropped without a word (the writer panicked), it says unavailable.
#[derive(Default)]
pub(super) struct Answer {
    ticket: Option<Arc<Ticket<CaptureResult>>>,
    mailbox: Option<Arc<Mailbox>>,
}

impl Answer {
    /// An answer for the calling thread, and the future that waits for it.
    pub(super) fn new() -> (Answer, Filled<CaptureResult>) {
        let ticket = Ticket::new();
        (Answer { ticket: Some(ticket.clone()), mailbox: Mailbox::current() }, Filled(ticket))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            ticket.fill(Err(Unavailable("the ledger's writer stopped".into()).into()));
        }
    }
}

/// An answer and whom it is for.
type Letter = (Arc<Ticket<CaptureResult>>, CaptureResult);

/// The answers of one batch, sorted by core; they go when this is dropped, none before.
#[derive(Default)]
pub(super) struct Post {
    by_core: Vec<(Arc<Mailbox>, Vec<Letter>)>,
    /// For threads without a mailbox.
    others: Vec<Letter>,
}

impl Post {
    /// Adds an answer.
    pub(super) fn send(&mut self, mut answer: Answer, result: CaptureResult) {
        let Some(ticket) = answer.ticket.take() else { return };
        let Some(mailbox) = answer.mailbox.take() else { return self.others.push((ticket, result)) };
        match self.by_core.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &mailbox)) {
            Some((_, letters)) => letters.push((ticket, result)),
            None => self.by_core.push((mailbox, vec![(ticket, result)])),
        }
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        for (mailbox, mut mine) in self.by_core.drain(..) {
            let driver = {
                let mut letters = mailbox.lock();
                if !letters.closed {
                    letters.ready.append(&mut mine);
                }
                letters.driver.take()
            };
            // Left only when the driver is gone.
            for (ticket, result) in mine {
                ticket.fill(result);
            }
            if let Some(driver) = driver {
                driver.wake();
            }
        }
        for (ticket, result) in self.others.drain(..) {
            ticket.fill(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn receipt(n: i64) -> CaptureResult {
        Ok(Receipt { n, at_ms: 1 })
    }

    #[test]
    fn a_batch_wakes_the_core_once_and_each_task_at_home() {
        let (core, task) = (Arc::new(Count(AtomicUsize::new(0))), Arc::new(Count(AtomicUsize::new(0))));
        let (core_waker, task_waker) = (Waker::from(core.clone()), Waker::from(task.clone()));
        let mut driver = std::pin::pin!(Mailbox::install());
        assert!(driver.as_mut().poll(&mut Context::from_waker(&core_waker)).is_pending());
        let (answers, mut futures): (Vec<_>, Vec<_>) = (0..5).map(|_| Answer::new()).unzip();
        for future in &mut futures {
            assert!(Pin::new(future).poll(&mut Context::from_waker(&task_waker)).is_pending());
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut post = Post::default();
                answers.into_iter().zip(0..).for_each(|(answer, n)| post.send(answer, receipt(n)));
            });
        });
        assert_eq!((core.0.load(Ordering::Relaxed), task.0.load(Ordering::Relaxed)), (1, 0));
        assert!(driver.as_mut().poll(&mut Context::from_waker(&core_waker)).is_pending());
        assert_eq!(task.0.load(Ordering::Relaxed), 5);
        for (n, future) in (0..).zip(&mut futures) {
            let mut cx = Context::from_waker(&task_waker);
            assert_eq!(Pin::new(future).poll(&mut cx), Poll::Ready(receipt(n)));
        }
    }

    #[test]
    fn letters_reach_their_tasks_when_the_driver_is_gone_and_a_lost_answer_is_an_error() {
        let driver = Mailbox::install();
        let (answer, mut early) = Answer::new();
        let (late_answer, mut late) = Answer::new();
        let (dropped, mut lost) = Answer::new();
        Post::default().send(answer, receipt(1));
        drop(driver);
        assert!(Mailbox::current().is_none());
        Post::default().send(late_answer, receipt(2));
        drop(dropped);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut early).poll(&mut cx), Poll::Ready(receipt(1)));
        assert_eq!(Pin::new(&mut late).poll(&mut cx), Poll::Ready(receipt(2)));
        assert!(matches!(Pin::new(&mut lost).poll(&mut cx), Poll::Ready(Err(CaptureError::Unavailable(_)))));
    }
}
