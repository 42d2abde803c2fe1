//! Entries of `exact`: a transfer of a known token, by EIP-3009.
//!
//! What a token is worth is known here or it is not paid with: a stranger's word for it would be a price of his choice.

use serde_json::{Map, Value};

use super::{Entry, Offer, OfferError, Way, shortened};
use crate::wire::amount::{Currency, LEDGER_DECIMALS, Money, Units};
use crate::wire::evm::address::Address;
use crate::wire::evm::eip712::Domain;
use crate::wire::x402::Version;
use crate::wire::x402::assets::{self, KnownAsset};
use crate::wire::x402::network::Network;

/// Longest life of an authorisation that is signed: it is money in the open until it ends, whether it bought anything or
/// not.
pub const LIFETIME_MAX_S: u64 = 3600;
/// Longest name and version of a token's domain.
const DOMAIN_TEXT_MAX: usize = 100;

/// A token transfer that can be signed.
#[derive(Debug, Clone, PartialEq)]
pub struct Transfer {
    /// The version of x402 that it is offered in, and paid in.
    pub version: Version,
    /// `eip155:8453`
    pub network: Network,
    /// What moves.
    pub token: &'static KnownAsset,
    /// How much, in the token's smallest unit: `10_000` is 0.01 USDC.
    pub amount: u128,
    /// Who is paid.
    pub pay_to: Address,
    /// Where the signature counts.
    pub domain: Domain,
    /// How long the authorisation must hold, seconds; `1..=`[`LIFETIME_MAX_S`].
    pub lifetime_s: u64,
    /// The entry as it was offered; v2 echoes it.
    pub entry: Value,
    /// What stands beside it in v2; echoed, too.
    pub resource: Option<Value>,
}

impl Entry<'_> {
    pub(super) fn exact_v2(&self, told: &Told, now: i64) -> Result<Offer, OfferError> {
        let network = Network::parse(&self.required(None, "network")?);
        let offer = self.exact(Version::V2, network.ok(), "amount", now)?;
        match &offer.way {
            Way::Exact(transfer) => match told.contradicts(transfer) {
                Some(member) => Err(self.wrong(member, "is not the same in PAYMENT-REQUIRED and in the body")),
                None => Ok(offer),
            },
            Way::Deferred { .. } => Ok(offer),
        }
    }

    pub(super) fn exact_v1(&self, now: i64) -> Result<Offer, OfferError> {
        let network = Network::from_v1_name(&self.required(None, "network")?);
        self.exact(Version::V1, network.ok(), "maxAmountRequired", now)
    }

    fn exact(
        &self,
        version: Version,
        network: Option<Network>,
        amount: &'static str,
        now: i64,
    ) -> Result<Offer, OfferError> {
        let chain = network.and_then(|network| Some((network.evm_chain_id()?, network)));
        let Some((chain_id, network)) = chain else {
            return Err(self.wrong("network", "is no chain of Ethereum, and this client pays on no other"));
        };
        let address = self.required(None, "asset")?;
        let Some(token) = assets::find(&network, &address) else {
            let text = shortened(&address);
            return Err(self.wrong("asset", &format!("`{text}` is no token on {network} whose worth is known here")));
        };
        let contract = Address::parse(token.address).map_err(|e| self.wrong("asset", &e.to_string()))?;
        let count = self.required(None, amount)?;
        let digits = count.bytes().all(|b| b.is_ascii_digit());
        let count: u128 = count
            .parse()
            .ok()
            .filter(|n| digits && *n > 0)
            .ok_or_else(|| self.wrong(amount, &format!("`{}` is no whole number above zero", shortened(&count))))?;
        let price = worth(token, count).ok_or_else(|| self.wrong(amount, "is more than any budget holds"))?;
        let pay_to = self.required(None, "payTo")?;
        let lifetime_s = self.whole(None, "maxTimeoutSeconds")?.unwrap_or(0);
        if !(1..=LIFETIME_MAX_S).contains(&lifetime_s) {
            let problem = format!("must be 1 to {LIFETIME_MAX_S}: so long the money could be taken");
            return Err(self.wrong("maxTimeoutSeconds", &problem));
        }
        if self.text(Some("extra"), "assetTransferMethod")?.is_some_and(|method| method != "eip3009") {
            return Err(self.wrong("assetTransferMethod", "is not `eip3009`, the one that this client signs"));
        }
        // The contract alone decides which name and version count: a wrong one makes a signature that is good for nothing.
        let of_domain = |name: &'static str, known: &str| match self.text(Some("extra"), name)? {
            Some(text) if text.len() <= DOMAIN_TEXT_MAX => Ok(text),
            Some(_) => Err(self.wrong(name, "is too long")),
            None => Ok(known.to_owned()),
        };
        let domain = Domain {
            name: of_domain("name", token.name)?,
            version: Some(of_domain("version", token.version)?),
            chain_id,
            verifying_contract: contract,
        };
        Ok(Offer {
            price,
            network: network.as_str().to_owned(),
            resource: self.sold("url").or(self.text(None, "resource")?),
            description: self.sold("description").or(self.text(None, "description")?.filter(|text| !text.is_empty())),
            expires: Some(now.saturating_add_unsigned(lifetime_s)),
            way: Way::Exact(Box::new(Transfer {
                version,
                network,
                token,
                amount: count,
                pay_to: Address::parse(&pay_to).map_err(|e| self.wrong("payTo", &e.to_string()))?,
                domain,
                lifetime_s,
                entry: self.value.clone(),
                resource: self.resource.cloned(),
            })),
            pay_to: Some(pay_to),
        })
    }
}

/// What so much of a token is worth, rounded up to a millionth; `None` when it is more than the books hold.
fn worth(token: &KnownAsset, count: u128) -> Option<Money> {
    let units = match token.decimals.checked_sub(LEDGER_DECIMALS) {
        Some(finer) => count.div_ceil(10_u128.checked_pow(finer)?),
        None => count.checked_mul(10_u128.pow(LEDGER_DECIMALS - token.decimals))?,
    };
    let units = Units::new(i64::try_from(units).ok()?)?;
    Some(Money { units, currency: Currency::parse(token.currency).ok()? })
}

/// What a body says in entries of x402 v1, to be held against the field.
#[derive(Default)]
pub(super) struct Told(Vec<Entry1>);

/// The members that decide whose money goes where.
struct Entry1 {
    network: Option<Network>,
    asset: String,
    amount: String,
    pay_to: String,
}

impl Told {
    pub(super) fn read(body: &Value) -> Told {
        let accepts = body.get("accepts").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let exact = accepts
            .iter()
            .filter_map(Value::as_object)
            .filter(|entry| entry.get("scheme").is_some_and(|s| s == "exact"));
        let text = |entry: &Map<String, Value>, name: &str| {
            entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        Told(
            exact
                .map(|entry| Entry1 {
                    network: Network::from_v1_name(&text(entry, "network")).ok(),
                    asset: text(entry, "asset"),
                    amount: text(entry, "maxAmountRequired"),
                    pay_to: text(entry, "payTo"),
                })
                .collect(),
        )
    }

    /// The first member in which no entry of the body agrees. A body without tokens, or a network that v1 has no name for,
    /// contradicts nothing.
    fn contradicts(&self, transfer: &Transfer) -> Option<&'static str> {
        if self.0.is_empty() || transfer.network.v1_name().is_none() {
            return None;
        }
        let amount = transfer.amount.to_string();
        let is_address = |text: &str, address: &Address| Address::parse(text).as_ref() == Ok(address);
        type Agrees<'a> = &'a dyn Fn(&Entry1) -> bool;
        let members: [(&'static str, Agrees<'_>); 4] = [
            ("network", &|e| e.network.as_ref() == Some(&transfer.network)),
            ("asset", &|e| is_address(&e.asset, &transfer.domain.verifying_contract)),
            ("amount", &|e| e.amount == amount),
            ("payTo", &|e| is_address(&e.pay_to, &transfer.pay_to)),
        ];
        let mut left: Vec<&Entry1> = self.0.iter().collect();
        for (member, agrees) in members {
            left.retain(|entry| agrees(entry));
            if left.is_empty() {
                return Some(member);
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
