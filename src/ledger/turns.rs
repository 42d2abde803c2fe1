//! What is owed, and how that ends: the answer of a capture whose money has moved and that nobody got.
//!
//! ```text
//!            ┌──────────── given back, a few times ───────────┐
//!            ▼                                                │
//! captured ─► owed ── turn taken ─► the origin is asked ──────┤
//!                                                             ├─► redelivered   the origin has succeeded
//!                                                             └─► lapsed        the last turn was given back
//! ```
//!
//! | state | durable | told | the process dies |
//! |---|---|---|---|
//! | owed | `owed` | 503 or nothing | the same: it is fetched by the next process |
//! | turn taken, origin asked | `owed` | – | the same, with all its turns |
//! | given back, not the last one | `owed` | the origin's failure, 409 or 502 | the same, with all its turns |
//! | given back, the last one | `owed` | the next request: in flight | the same: nobody was told that it is over |
//! | lapsed | `owed`, `lapsed` | 409 `payment_owed`: ask for a refund | not fetched; it is on the refund list |
//! | served | `owed`, `redelivered` | the answer, after the posting | not fetched; the charge stands |
//!
//! A capture of which nobody knows whether its answer left (a crash) is fetched in the same way, without `owed`; should it
//! lapse, `owed` is posted with it, for by then its payer has been told so. `lapsed` and `redelivered` exclude each other: the
//! turn is one at a time, and the writer looks for the other before it posts one.

use super::{
    batch::{BatchError, Captured, Stamp, sort},
    entry::{Kind, PostingKey},
    poster::Poster,
    queue::TurnEnd,
    store::Receipt,
};

/// Posts that the answer of a capture is owed; false if it was, or has been served since.
pub(super) fn owe<'e>(post: &mut Poster<'_, 'e>, capture: &'e Captured, stamp: Stamp) -> Result<bool, BatchError> {
    if has(post, capture, Kind::Redelivered)? {
        return Ok(false);
    }
    Ok(post.insert(&capture.entry(Kind::Owed, post.next_n(), stamp))?.is_some())
}

/// Posts the end of a turn; `None` where there was another one before. The receipt is the capture's.
pub(super) fn end<'e>(
    post: &mut Poster<'_, 'e>,
    capture: &'e Captured,
    end: TurnEnd,
    stamp: Stamp,
) -> Result<Option<Receipt>, BatchError> {
    let (kind, other) = match end {
        TurnEnd::Served => (Kind::Redelivered, Kind::Lapsed),
        TurnEnd::Lapsed => (Kind::Lapsed, Kind::Redelivered),
    };
    if has(post, capture, other)? {
        return Ok(None);
    }
    if end == TurnEnd::Lapsed {
        owe(post, capture, stamp)?;
    }
    let posted = post.insert(&capture.entry(kind, post.next_n(), stamp))?;
    Ok(posted.map(|_| Receipt { n: capture.n, at_ms: capture.at_ms.unsigned_abs() }))
}

fn has(post: &Poster<'_, '_>, capture: &Captured, kind: Kind) -> Result<bool, BatchError> {
    let key = PostingKey::new(kind, &capture.key.payment(), 0);
    Ok(post.find(&key).map_err(sort)?.is_some())
}
