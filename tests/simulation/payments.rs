//! What agents sign, and under which key it is booked, however it is written.

use tollgate::{
    ledger::{
        day::{CreditPeriod, credit_period},
        store::{ClaimRequest, Intent, Posting, Purchase},
    },
    payment::key::PaymentKey,
    wire::{
        amount::{Asset, Units},
        evm::address::Address,
        x402::network::Network,
    },
};

use tollgate::ledger::open_accounts::PREFIX;

use super::bugs::Bug;

const USDC: &str = "eip155:84532/erc20:0x036cbd53842c5426634e7929541ec2318f3dcf7e";
/// Account and asset, of all that can owe.
/// What all open accounts together may owe.
pub const OPEN_LIMIT: i64 = 120;
const ACCOUNTS: [(&str, &str); 4] = [("acme", "USD"), ("open:a", "EUR"), ("wallets", USDC), ("open:b", "EUR")];
/// How long an authorisation of a transfer may move money.
const LIFE_MS: u64 = 120_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// `deferred`, with one of our ids.
    Offer,
    /// `deferred`, without.
    Signature,
    /// `exact`; settled before the origin is asked, or after.
    Transfer { first: bool },
}

#[derive(Clone, Debug)]
pub struct Payment {
    /// Tells it from all others.
    pub number: usize,
    pub means: Means,
    pub signed_ms: u64,
    pub amount: i64,
}

impl Payment {
    /// The payment in this place, signed now.
    pub fn sign(number: usize, place: u8, signed_ms: u64) -> Payment {
        let means = match place {
            0 | 1 => Means::Offer,
            2 | 3 => Means::Signature,
            4 | 5 => Means::Transfer { first: false },
            _ => Means::Transfer { first: true },
        };
        Payment { number, means, signed_ms, amount: 8 + (number as i64 * 7) % 20 }
    }

    pub fn is_exact(&self) -> bool {
        matches!(self.means, Means::Transfer { .. })
    }

    fn account(&self) -> (&'static str, &'static str) {
        // Two accounts of their own, of which each is short of credit, and so is what they have together.
        ACCOUNTS[if self.is_exact() { 2 } else { [0, 1, 0, 3][self.number % 4] }]
    }

    /// When it can no longer move money.
    pub fn ends_ms(&self) -> u64 {
        self.signed_ms + LIFE_MS
    }

    /// Its key, from one of the texts that all mean this payment.
    pub fn key(&self, spelling: u8, bug: Option<Bug>) -> PaymentKey {
        let number = self.number.to_be_bytes();
        // A payer's address in another case; a signature over the same base in its other form.
        let from = format!("0x{:040x}", 0xabcd_ef00 + self.number);
        let text = if spelling.is_multiple_of(2) { from } else { from.to_uppercase().replace("0X", "0x") };
        if bug == Some(Bug::TextAsKey) && self.means != Means::Offer {
            return PaymentKey::from_signature(&[text.as_bytes()]);
        }
        match self.means {
            Means::Offer => {
                let mut id = [0; 48];
                id[..6].copy_from_slice(&self.signed_ms.to_be_bytes()[2..]);
                id[6..14].copy_from_slice(&number);
                PaymentKey::from_offer_id(&id)
            }
            Means::Signature => PaymentKey::from_signature(&[b"https://signer.example.com", b"thumbprint", &number]),
            Means::Transfer { .. } => {
                let network = Network::parse("eip155:84532").unwrap();
                let token = Address::parse("0x036cbd53842c5426634e7929541ec2318f3dcf7e").unwrap();
                PaymentKey::from_eip3009(&network, &token, &Address::parse(&text).unwrap(), &[7; 32])
            }
        }
    }

    /// What is asked of a store by a replica whose time is `now_ms`.
    pub fn request(&self, key: PaymentKey, now_ms: u64) -> ClaimRequest {
        let (account, asset) = self.account();
        let (period, limit) = match account {
            "acme" => (credit_period(CreditPeriod::Day, now_ms), 70),
            "open:a" | "open:b" => (credit_period(CreditPeriod::Month, now_ms), 90),
            _ => (0, tollgate::wire::amount::UNITS_MAX),
        };
        // Two wallets' payments are for one thing.
        let what =
            if self.number.is_multiple_of(2) { "GET https://shop.example/a" } else { "GET https://shop.example/b" };
        let purchase = Purchase { payer: "eip155:84532:0xaa".into(), what: what.into() };
        ClaimRequest {
            within: account.starts_with(PREFIX).then(|| units(OPEN_LIMIT)),
            key,
            paid_at_ms: self.signed_ms,
            account: account.into(),
            amount: units(self.amount),
            asset: Asset::parse(asset).unwrap(),
            limit: units(limit),
            period,
            purchase: self.is_exact().then_some(purchase),
            payer: None,
        }
    }

    pub fn posting(&self, amount: i64) -> Posting {
        Posting {
            agent: if self.is_exact() { "eip155:84532:0xaa" } else { "https://signer.example.com" }.into(),
            agent_key: None,
            route: "articles".into(),
            scheme: if self.is_exact() { "exact" } else { "deferred" },
            amount: units(amount),
            list_amount: units(self.amount),
            table_hash: [7; 32],
            status: 200,
            method: "GET".into(),
            target: "https://shop.example/a".into(),
            evidence: b"\x01 evidence".to_vec(),
            key: None,
            grant: None,
        }
    }

    pub fn intent(&self) -> Intent {
        Intent {
            posting: self.posting(self.amount),
            facilitator: "https://facilitator.example".into(),
            payload: br#"{"x402Version":2}"#.to_vec(),
            hard_until_ms: self.ends_ms(),
        }
    }
}

fn units(count: i64) -> Units {
    Units::new(count).unwrap()
}
