//! The refund list: captures that moved money and whose answer nobody got.

use super::{
    books::int,
    correction,
    entry::{Kind, PostingKey},
    evidence::{BodyDigest, WalletEvidence},
    opening::SKEW_MAX_MS,
    read::{LedgerReader, ReadError},
    settlements::find,
    sql::params,
    steps,
};
use crate::payment::key::PaymentKey;
use crate::wire::x402::receipt::Receipt;

/// A capture that is owed its answer, or its money back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// The capture's number.
    pub n: i64,
    /// The payment.
    pub key: PaymentKey,
    /// `wallets`
    pub account: String,
    /// Who paid: `eip155:8453:0x857b…` (CAIP-10), or the network alone.
    pub payer: String,
    /// What moved, in ledger units, more than zero.
    pub amount: i64,
    /// What of it was given back; less than all.
    pub refunded: i64,
    /// Of what, with its network: `eip155:8453/erc20:0x8335…`.
    pub asset: String,
    /// When it was captured, Unix ms.
    pub paid_ms: i64,
    /// Since when it is known that nobody got the answer, Unix ms.
    pub since_ms: i64,
    /// The route's name.
    pub route: String,
    /// Request method.
    pub method: Option<String>,
    /// What was bought; none where retention dropped it.
    pub target: Option<String>,
    /// The transaction on the network; none where the evidence names none, or is gone.
    pub transaction: Option<String>,
    /// Whether its payer can still have the answer.
    pub fetch: Fetch,
}

/// Whether what is owed can be fetched by the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// As far as the books tell.
    Yes,
    /// Its turns are over.
    Lapsed,
    /// Some of it was given back.
    Refunded,
    /// A payment of x402 v1: anybody could copy it from the chain.
    Version1,
    /// The body of its request was not read to its end, so that no request can be told to be the same.
    Body,
    /// Retention dropped its evidence.
    Dropped,
    /// Older than the replay floor: only a process that has it in memory since then serves it.
    Expired,
}

impl LedgerReader {
    /// What is owed and was neither served nor all given back since, oldest first.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn owed(&self) -> Result<Vec<Owed>, ReadError> {
        let served = self.connection.prefixed(Kind::Redelivered as u8, "substr(o.key, 2)");
        let select = format!(
            "SELECT c.n, c.key, c.agent, c.amount, c.asset, c.at_ms, o.at_ms, c.route, c.method, c.target, c.evidence, c.account \
             FROM entries o JOIN entries c ON c.n = o.ref_n \
             WHERE o.kind = ?1 AND c.kind = ?2 AND c.amount > 0 AND NOT EXISTS ( \
               SELECT 1 FROM entries r WHERE r.key = {served}) ORDER BY c.n"
        );
        let rows = self.connection.all(&select, params![Kind::Owed as i64, Kind::Capture as i64], |row| {
            let key = row.get::<&[u8]>(1)?.get(1..).and_then(PaymentKey::from_bytes);
            let evidence: Option<&[u8]> = row.get(10)?;
            let evidence = evidence.and_then(|bytes| WalletEvidence::decode(bytes).ok());
            let receipt = evidence.as_ref().and_then(|evidence| Receipt::decode(evidence.receipt.as_bytes()));
            let Some(key) = key else { return Ok(None) };
            let refunds = steps::matters(&self.connection, &key, Kind::Refund)?;
            let (amount, refunded) = (row.get(3)?, correction::refunded(&refunds));
            if refunded >= amount {
                return Ok(None);
            }
            let fetch = match &evidence {
                _ if refunded > 0 => Fetch::Refunded,
                _ if find(&self.connection, &PostingKey::new(Kind::Lapsed, &key, 0))?.is_some() => Fetch::Lapsed,
                None => Fetch::Dropped,
                Some(WalletEvidence { sealed_id: None, .. }) => Fetch::Version1,
                // What a call asks for is part of its target.
                Some(WalletEvidence { body: BodyDigest::Unknown, target, .. }) if !target.contains('#') => Fetch::Body,
                Some(_) if row.get::<i64>(5)? < self.book.floor_ms.saturating_sub(int(SKEW_MAX_MS)) => Fetch::Expired,
                Some(_) => Fetch::Yes,
            };
            Ok(Some(Owed {
                n: row.get(0)?,
                key,
                account: row.get(11)?,
                payer: row.get(2)?,
                amount,
                refunded,
                asset: row.get(4)?,
                paid_ms: row.get(5)?,
                since_ms: row.get(6)?,
                route: row.get(7)?,
                method: row.get(8)?,
                target: row.get(9)?,
                transaction: receipt.map(|receipt| receipt.transaction).filter(|transaction| !transaction.is_empty()),
                fetch,
            }))
        })?;
        Ok(rows.into_iter().flatten().collect())
    }
}
