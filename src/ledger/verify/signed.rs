//! A commitment: key, signature, and whether what was signed is what was booked.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{Booked, Checks};
use crate::{
    ledger::{entry::Entry, evidence::Evidence, targets::is_kept_of},
    payment::{batch, id::SealedId, key::PaymentKey},
    pricing::normal_path,
    wire::{
        amount::{Asset, Money, Units},
        jwk::{Jwk, PublicKey},
        x402::{Version, payload::Payload},
    },
};

/// Whether the signature verifies under the key that the ledger holds; `None` without key.
pub fn signature_verifies(jwk: Option<&str>, evidence: &Evidence) -> Option<bool> {
    let key = public_key(jwk)?;
    Some(key.thumbprint() == evidence.thumbprint && key.verifies(&evidence.signature_base, &evidence.signature))
}

/// The key of a row of `keys`; `None` where there is none or it is no usable one.
pub(in crate::ledger) fn public_key(jwk: Option<&str>) -> Option<PublicKey> {
    let jwk: Jwk = serde_json::from_str(jwk?).ok()?;
    // Which keys counted was decided when the payment was taken.
    jwk.public_key(true).ok()
}

/// The agent's key and its signature. A row that does not hold the key of its thumbprint shows nothing: the entry may be right.
fn commitment(entry: &Entry<'_>, evidence: &Evidence, jwk: Option<&str>, checks: &mut Checks) {
    let is_named = entry.agent_key == Some(&*evidence.thumbprint);
    if !is_named {
        checks.test("key", false, "", "entry and evidence name different keys");
    }
    let Some(key) = public_key(jwk).filter(|key| Some(key.thumbprint()) == entry.agent_key) else {
        let why = match jwk {
            None => "the agent's key is not in this ledger",
            Some(_) => "the agent's key in this ledger is damaged",
        };
        checks.unproven("key", why);
        return checks.unproven("signature", why);
    };
    if is_named {
        checks.test("key", true, format!("thumbprint {}", key.thumbprint()), "");
    }
    let verifies = key.verifies(&evidence.signature_base, &evidence.signature);
    let ok = format!("{}, over the signed text", key.algorithm().title());
    checks.test("signature", verifies, ok, "it does not verify under the agent's key");
}

pub(super) fn check(entry: &Entry<'_>, evidence: &Evidence, jwk: Option<&str>, checks: &mut Checks) {
    commitment(entry, evidence, jwk, checks);
    let base = String::from_utf8_lossy(&evidence.signature_base);
    let lines = Lines(&base);
    let booked = Booked::parse(&evidence.target);
    resource(entry, evidence, &lines, booked.as_ref(), checks);
    offer_id(entry, evidence, &lines, booked.as_ref(), checks);
    payment_key(entry, evidence, booked.as_ref(), checks);
    amount(entry, evidence, &lines, checks);
}

/// The lines of a signature base.
struct Lines<'b>(&'b str);

impl<'b> Lines<'b> {
    /// The value of a whole component: `@path`, `payment`, as it is or in its strict form.
    fn value(&self, name: &str) -> Option<&'b str> {
        let line = |line: &'b str| {
            let rest = line.strip_prefix('"')?.strip_prefix(name)?.strip_prefix('"')?;
            rest.strip_prefix(";sf").unwrap_or(rest).strip_prefix(": ")
        };
        self.0.lines().find_map(line)
    }
}

/// What was signed names what was booked, as far as the signature covers it.
fn resource(entry: &Entry<'_>, evidence: &Evidence, lines: &Lines<'_>, booked: Option<&Booked>, checks: &mut Checks) {
    let Some(booked) = booked else { return checks.test("resource", false, "", "the target is no URL") };
    if entry.method != Some(&evidence.method)
        || entry.target.is_some_and(|target| !is_kept_of(target, &evidence.target))
    {
        return checks.test("resource", false, "", "entry and evidence name different requests");
    }
    let query = booked.query.as_deref();
    let is_path = |raw: &str| normal_path(raw) == booked.path;
    let is_uri = |uri: &str| {
        Booked::parse(uri)
            .is_some_and(|uri| (&uri.authority, &uri.query) == (&booked.authority, &booked.query) && is_path(&uri.path))
    };
    let mut covered = Vec::new();
    let mut wrong = Vec::new();
    let mut compare = |name: &'static str, holds: &dyn Fn(&str) -> bool| {
        if let Some(value) = lines.value(name) {
            covered.push(name);
            if !holds(value) {
                wrong.push(name);
            }
        }
    };
    compare("@method", &|value| value == evidence.method);
    compare("@authority", &|value| value == booked.authority);
    compare("@path", &is_path);
    compare("@query", &|value| value == format!("?{}", query.unwrap_or("")));
    compare("@target-uri", &is_uri);
    let ok = format!("the signed {} are those of the request", covered.join(", "));
    let failed = format!("the signed {} are of another request", wrong.join(", "));
    if covered.is_empty() {
        checks.skip("resource", "the signature covers nothing of the request's target");
    } else {
        checks.test("resource", wrong.is_empty(), ok, failed);
    }
}

/// The id that was signed for is one for this resource, under these terms.
fn offer_id(entry: &Entry<'_>, evidence: &Evidence, lines: &Lines<'_>, booked: Option<&Booked>, checks: &mut Checks) {
    let Some(id) = evidence.sealed_id else { return checks.skip("offer_id", "paid without an offer's id") };
    let text = URL_SAFE_NO_PAD.encode(id);
    let is_signed = match entry.scheme {
        "batch-settlement" => payload(lines).is_some_and(|payload| batch::id_of(&payload) == Some(&text)),
        _ => lines.value("payment").is_some_and(|value| value.contains(&text)),
    };
    if !is_signed {
        return checks.test("offer_id", false, "", "the signed text names another one, or none");
    }
    seal(id, evidence.template_digest, &evidence.method, booked, checks);
}

/// What anybody can tell of a sealed id, and what only its maker can.
pub(super) fn seal(
    id: [u8; 48],
    template_digest: Option<[u8; 32]>,
    method: &str,
    booked: Option<&Booked>,
    checks: &mut Checks,
) {
    let id = SealedId::from_bytes(id);
    let is_for =
        template_digest.zip(booked).is_some_and(|(digest, booked)| id.is_for(&digest, &booked.resource(method)));
    checks.test(
        "offer_id",
        is_for,
        "its digest is that of the terms and the resource",
        "its digest is that of other terms or another resource",
    );
    checks.skip("seal", "only the gateway's secret can tell whether it made the id");
}

/// The payload of `batch-settlement`, as it was signed.
fn payload(lines: &Lines<'_>) -> Option<Payload> {
    Payload::decode(lines.value("payment-signature")?.as_bytes(), Version::V2).ok()
}

fn payment_key(entry: &Entry<'_>, evidence: &Evidence, booked: Option<&Booked>, checks: &mut Checks) {
    let found = entry.key.payment();
    let holds = match evidence.sealed_id {
        Some(id) => found == PaymentKey::from_offer_id(&id),
        None => {
            let signed = [entry.agent.as_bytes(), evidence.thumbprint.as_bytes(), &evidence.signature_base];
            // Where one signature serves many requests, the request is part of the key.
            let with_request = booked.is_some_and(|booked| {
                let resource = booked.resource(&evidence.method);
                let request = [resource.priced_method(), resource.authority, resource.path, resource.query];
                found == PaymentKey::from_signature(&[&signed[..], &request.map(str::as_bytes)].concat())
            });
            with_request || found == PaymentKey::from_signature(&signed)
        }
    };
    checks.test("payment_key", holds, "it is made of what was signed", "it is that of another payment");
}

/// What was charged is no more than what was signed for.
fn amount(entry: &Entry<'_>, evidence: &Evidence, lines: &Lines<'_>, checks: &mut Checks) {
    let asset = Asset::parse(entry.asset);
    if asset == Some(Asset::Requests) {
        return checks.test(
            "amount",
            entry.amount == 1,
            "one request that an allowance or a pass gave, no money",
            "not one request",
        );
    }
    let money = Units::new(entry.amount).zip(asset.and_then(|asset| asset.currency()));
    let Some(money) = money.map(|(units, currency)| Money { units, currency }) else {
        return checks.test("amount", false, "", "what is charged is no amount of a currency");
    };
    if let Some(id) = evidence.sealed_id {
        let sealed = SealedId::from_bytes(id).amount_units();
        let ok = format!("{} of {sealed} units that the id names", entry.amount);
        return checks.test("amount", entry.amount <= sealed, ok.clone(), format!("{ok}: too much"));
    }
    let bid = |field: &str| {
        let (currency, amount) = lines.value(field)?.split_once(' ')?;
        Money::parse(&format!("{amount} {currency}")).ok()
    };
    let (ok, failed) = ("no more than was signed for", "more than was signed for, or of another currency");
    if let Some(payload) = payload(lines) {
        return checks.test("amount", batch::pays(&payload, &money.wire()).is_ok(), ok, failed);
    }
    match bid("crawler-exact-price").or_else(|| bid("crawler-max-price")) {
        Some(bid) => {
            let holds = bid.currency == money.currency && money.units <= bid.units;
            checks.test("amount", holds, ok, failed);
        }
        None => checks.test("amount", false, "", "the signed text names no amount"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_found_by_their_whole_name() {
        let lines =
            Lines("\"@authority\": a.example\n\"@path\": /p\n\"payment-signature\": e30=\n\"@signature-params\": ()");
        assert_eq!((lines.value("@path"), lines.value("payment")), (Some("/p"), None));
        assert_eq!(Lines("\"payment\";sf: id=1\n\"payment\";key=\"id\": 2").value("payment"), Some("id=1"));
        assert_eq!((lines.value("payment-signature"), lines.value("path")), (Some("e30="), None));
    }
}
