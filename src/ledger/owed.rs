//! The refund list: captures that moved money and whose answer nobody got.

use super::{
    entry::Kind,
    evidence::WalletEvidence,
    read::{LedgerReader, ReadError},
    sql::params,
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
}

impl LedgerReader {
    /// What is owed and was not served since, oldest first.
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
            let receipt =
                evidence.and_then(|bytes| Receipt::decode(WalletEvidence::decode(bytes).ok()?.receipt.as_bytes()));
            let Some(key) = key else { return Ok(None) };
            Ok(Some(Owed {
                n: row.get(0)?,
                key,
                account: row.get(11)?,
                payer: row.get(2)?,
                amount: row.get(3)?,
                asset: row.get(4)?,
                paid_ms: row.get(5)?,
                since_ms: row.get(6)?,
                route: row.get(7)?,
                method: row.get(8)?,
                target: row.get(9)?,
                transaction: receipt.map(|receipt| receipt.transaction).filter(|transaction| !transaction.is_empty()),
            }))
        })?;
        Ok(rows.into_iter().flatten().collect())
    }
}
