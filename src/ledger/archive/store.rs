//! What the ledger's owner is asked about archives.

use std::{future, sync::Arc};

use super::{ArchiveError, Drops, Summary};
use crate::ledger::{
    batch::BatchError,
    books::Books,
    ledger_store::LedgerStore,
    mailbox::{Filled, Ticket},
    queue::Ask,
    store::StoreFuture,
};

/// On its way to the writer.
pub(in crate::ledger) enum ArchiveAsk {
    Note(Box<Summary>, Drops),
    Drop(i64),
}

/// Who waits for it: how many rows were dropped.
pub(in crate::ledger) type ArchiveTicket = Arc<Ticket<Result<u64, ArchiveError>>>;

impl LedgerStore {
    /// Notes an archive that was made and verified: from here on what it has counts as dropped. Twice is once.
    pub fn note_archive(&self, summary: Summary, drops: Drops) -> StoreFuture<Result<u64, ArchiveError>> {
        self.ask_archive(ArchiveAsk::Note(Box::new(summary), drops))
    }

    /// Drops some of what archives have taken over, at most so many rows at once: how many; 0 when nothing is left.
    pub fn drop_archived(&self, most: i64) -> StoreFuture<Result<u64, ArchiveError>> {
        self.ask_archive(ArchiveAsk::Drop(most))
    }

    fn ask_archive(&self, ask: ArchiveAsk) -> StoreFuture<Result<u64, ArchiveError>> {
        if let Err(unavailable) = self.open_now() {
            return Box::pin(future::ready(Err(ArchiveError::Unavailable(unavailable))));
        }
        let ticket = Ticket::new();
        self.shared.queue.ask(Ask::Archive(ask, ticket.clone()));
        Box::pin(Filled(ticket))
    }
}

impl ArchiveAsk {
    /// Does it, in one transaction.
    pub(in crate::ledger) fn carry_out(self, books: &mut Books) -> Result<Result<u64, ArchiveError>, BatchError> {
        match self {
            ArchiveAsk::Note(summary, drops) => Ok(books.note_archive(&summary, drops)?.map(|()| 0)),
            ArchiveAsk::Drop(most) => Ok(Ok(books.drop_archived(most.max(1))?)),
        }
    }
}
