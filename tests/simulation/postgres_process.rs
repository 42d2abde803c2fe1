//! A gateway's process over a server, and when it is quiet: it has answered a question after everything that it was asked before.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
};

use tollgate::{
    ledger::{ledger_store::LedgerStore, store::Store},
    payment::key::PaymentKey,
};

use super::{disk::Disk, wire::Wire};

pub struct Unpark(pub Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub struct Process {
    pub store: Arc<LedgerStore>,
    pub wire: Wire,
    pub disk: Arc<Disk>,
    /// How it is told from others among the writers.
    pub name: String,
}

/// How far a replica has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Quiet {
    /// Everything is answered.
    Yes,
    /// But for what waits for a commit that hangs, or for a server that is out of reach.
    Stuck,
}

/// What a replica is asked so that it has done everything else.
pub struct Question<'p> {
    pub process: &'p Process,
    writer: Option<Asked>,
    desk: Option<Asked>,
    settled: bool,
}

type Asked = Pin<Box<dyn Future<Output = bool> + Send>>;

impl<'p> Question<'p> {
    pub fn new(process: &'p Process) -> Question<'p> {
        let (writer, desk) = (Some(to_writer(process)), Some(to_desk(process)));
        Question { process, writer, desk, settled: true }
    }

    /// How quiet it is, once that is known.
    pub fn poll(&mut self, waker: &Waker) -> Option<Quiet> {
        let mut cx = Context::from_waker(waker);
        let (held, cut) = {
            let wire = self.process.wire.lock();
            (wire.held.is_some(), wire.cut)
        };
        for (asked, again) in [(&mut self.writer, to_writer as fn(&Process) -> Asked), (&mut self.desk, to_desk)] {
            let Some(question) = asked else { continue };
            match question.as_mut().poll(&mut cx) {
                Poll::Ready(true) => *asked = None,
                // A commit may hang while it finds its server again.
                Poll::Ready(false) if cut || held => {
                    self.settled = false;
                    *asked = None;
                }
                // It finds its server again.
                Poll::Ready(false) => {
                    self.process.wire.lock().busy = true;
                    self.process.store.hurry();
                    *asked = Some(again(self.process));
                }
                Poll::Pending => {}
            }
        }
        let done = self.desk.is_none() && (self.writer.is_none() || held);
        done.then_some(if self.settled { Quiet::Yes } else { Quiet::Stuck })
    }
}

fn to_writer(process: &Process) -> Asked {
    let asked = process.store.find(PaymentKey::from_signature(&[b"nobody's"]));
    Box::pin(async move { asked.await.is_ok() })
}

fn to_desk(process: &Process) -> Asked {
    let asked = process.store.unresolved();
    Box::pin(async move { asked.await.is_ok() })
}
