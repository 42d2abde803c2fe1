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
//! lapse, `owed` is posted with it (not on credit, where no money has moved), for by then its payer has been told so. A refund ends it as well, at once; a turn that is
//! taken then gives nothing. The ends exclude each other: the writer looks for another one before it posts one.
//!
//! On a server turns are counted in the row of the payment: there are three of them for all gateways together, whoever dies.

use super::{
    batch::{BatchError, Stamp, sort},
    captured::Captured,
    entry::{Kind, PostingKey, is_settled_at_once},
    poster::Poster,
    queue::TurnEnd,
    settlements,
    sql::{Session, SqlResult},
    steps,
    store::Receipt,
};

/// Whether an answer waits for its payer.
pub(super) enum Stand {
    /// It was served later, has lapsed, or was given back.
    Over,
    /// It is owed.
    Owed,
    /// Nothing is posted about it.
    Unknown,
}

/// What the books say of the answer to a capture.
pub(super) fn stand(connection: &Session, capture: &Captured) -> SqlResult<Stand> {
    for kind in [Kind::Void, Kind::Redelivered, Kind::Lapsed] {
        if find(connection, capture, kind)?.is_some() {
            return Ok(Stand::Over);
        }
    }
    if steps::is_refunded(connection, &capture.key.payment())? {
        return Ok(Stand::Over);
    }
    Ok(if find(connection, capture, Kind::Owed)?.is_some() { Stand::Owed } else { Stand::Unknown })
}

/// Posts that the answer of a capture is owed; false if that was posted before, or its end.
pub(super) fn owe<'e>(post: &mut Poster<'_, 'e>, capture: &'e Captured, stamp: Stamp) -> Result<bool, BatchError> {
    if let Stand::Over = stand(post.connection(), capture).map_err(sort)? {
        return Ok(false);
    }
    Ok(post.insert(&capture.entry(Kind::Owed, post.next_n(), stamp))?.is_some())
}

/// Posts the end of a turn; `None` where there was an end before. The receipt is the capture's.
pub(super) fn end<'e>(
    post: &mut Poster<'_, 'e>,
    capture: &'e Captured,
    end: TurnEnd,
    stamp: Stamp,
) -> Result<Option<Receipt>, BatchError> {
    if let Stand::Over = stand(post.connection(), capture).map_err(sort)? {
        return Ok(None);
    }
    let kind = match end {
        TurnEnd::Served => Kind::Redelivered,
        TurnEnd::Lapsed => {
            // On credit nothing has moved that could be owed.
            if is_settled_at_once(&capture.scheme) {
                owe(post, capture, stamp)?;
            }
            Kind::Lapsed
        }
    };
    let posted = post.insert(&capture.entry(kind, post.next_n(), stamp))?;
    Ok(posted.map(|_| Receipt { n: capture.n, at_ms: capture.at_ms.unsigned_abs() }))
}

/// The later posting of this kind about a capture.
pub(super) fn find(connection: &Session, capture: &Captured, kind: Kind) -> SqlResult<Option<i64>> {
    settlements::find(connection, &PostingKey::new(kind, &capture.key.payment(), 0))
}
