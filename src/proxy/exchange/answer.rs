//! What a paid answer carries besides the origin's own: the payment response, and that it is private.

use http::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::Exchange;
use crate::ledger::store::Receipt;
use crate::payment::batch::Confirmation;
use crate::payment::crawl;
use crate::payment::offer_receipt;
use crate::payment::permit::{Credit, Means};
use crate::proxy::body::{AnswerBody, BodyWatch, OriginBody};
use crate::proxy::connection::Client;
use crate::proxy::core::Core;
use crate::proxy::delivery::Tracker;
use crate::proxy::rescue;
use crate::proxy::trace::Charged;
use crate::telemetry::access::Sold;
use crate::wire::amount::{Asset, Units};
use crate::wire::x402::Version;

impl Exchange {
    /// The origin's answer as the payer gets it, its delivery followed.
    pub(super) fn answer(
        &self,
        core: &Core,
        client: &Client,
        mut response: Response<OriginBody>,
        (receipt, upload): (Receipt, BodyWatch),
        x402: Option<&str>,
    ) -> Response<AnswerBody> {
        let result = self.let_go(&mut response, receipt, x402);
        let store = core.shared.store.clone();
        let (meter, multiplexed) = (client.meter.clone(), client.multiplexed);
        let tracker = Tracker::new(store, (receipt, self.sale.clone()), meter, multiplexed, upload).of_result(result);
        let response = response.map(|body| AnswerBody::origin(body, Some(tracker)));
        self.paid(core, response, receipt, x402)
    }

    /// What the gateway's key says of this purchase, as an extension of the payment response. `None` without a key, or where
    /// the resource is too long to be named in a field.
    pub(super) fn signed_receipt(
        &self,
        core: &Core,
        network: &str,
        payer: &str,
        transaction: &str,
    ) -> Option<serde_json::Value> {
        let signing = &core.shared.config.signing;
        let key = core.shared.key.as_ref().filter(|_| signing.receipts)?;
        let authority = self.target.split("://").nth(1)?.split(['/', '?', '#']).next()?;
        // As the offer named it.
        let resource = match &self.call {
            Some(call) if call.tells_in_result() => call.url(),
            Some(_) => self.target.split('#').next()?.to_owned(),
            None => self.target.to_string(),
        };
        if resource.len() > RESOURCE_BYTES_MAX {
            return None;
        }
        let transaction = signing.transaction.then_some(transaction);
        let issued_at = core.shared.clock.now_ms() / 1000;
        Some(
            offer_receipt::Bought { resource: &resource, network, payer, issued_at, transaction }
                .extension(key, authority),
        )
    }

    /// Adds what a paid answer carries; `x402` is the facilitator's receipt, where there is one.
    pub(super) fn paid(
        &self,
        core: &Core,
        mut response: Response<AnswerBody>,
        receipt: Receipt,
        x402: Option<&str>,
    ) -> Response<AnswerBody> {
        let headers = response.headers_mut();
        let (name, value, vary) = match &self.permit.means {
            Means::Credit { by: Credit::Batch(network), .. } => {
                let payer = self.permit.agent.split_once("://").map_or(&*self.permit.agent, |(_, host)| host);
                let id = receipt.n.to_string();
                let charged = self.charged_money().map(|charged| {
                    let timestamp = receipt.at_ms / 1000;
                    let signed = self.signed_receipt(core, network, payer, "");
                    Confirmation { network, payer, charged: charged.wire(), timestamp, id: &id }.encode(signed)
                });
                let value = charged.and_then(|v| HeaderValue::try_from(v).ok());
                (PAYMENT_RESPONSE, value, "PAYMENT-SIGNATURE, Signature-Agent")
            }
            Means::Credit { by: Credit::Crawl(_), .. } => {
                let charged = self.charged_money().map(crawl::text_of);
                let value = charged.and_then(|v| HeaderValue::try_from(v).ok());
                (CRAWLER_CHARGED, value, "Crawler-Exact-Price, Crawler-Max-Price, Signature-Agent")
            }
            // It carries no payment, so there is nothing to confirm.
            Means::Credit { by: Credit::Pass, .. } => (PAYMENT_RESPONSE, None, "Signature-Agent"),
            Means::Credit { by: Credit::Deferred(payment), .. } => {
                let timestamp = (receipt.at_ms / 1000).cast_signed();
                // Scheme, network and id were read from a structured field, so they fit into one.
                let value = payment.response_field(timestamp).and_then(|v| HeaderValue::try_from(v).ok());
                (PAYMENT_RESPONSE, value, "Payment, Signature-Agent")
            }
            Means::Exact(exact) => {
                let value = x402.and_then(|v| HeaderValue::try_from(v).ok());
                let vary = if exact.version == Version::V1 { "X-PAYMENT" } else { "PAYMENT-SIGNATURE" };
                (rescue::payment_response_field(exact.version), value, vary)
            }
        };
        if let Some(value) = value {
            headers.insert(name, value);
        }
        // What the offer said is not what everybody is charged.
        if let Some(value) = self.charged_text().and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(CHARGED, value);
        }
        make_private(headers);
        headers.append(header::VARY, HeaderValue::from_static(vary));
        if core.shared.config.server.cors {
            rescue::expose_with_origin(headers);
        }
        let posted = self.posted.get().unwrap_or(Units::ZERO);
        let micros =
            if self.fund().asset == Asset::Requests { 0 } else { millionths(core, &self.permit.fund.asset, posted) };
        let sold = Box::new(self.sold(receipt, posted));
        response.extensions_mut().insert(Charged { micros, sold });
        response
    }

    /// What was taken on credit, as the books have it.
    fn charged_text(&self) -> Option<String> {
        let Means::Credit { .. } = &self.permit.means else { return None };
        match (&self.fund().asset, self.charged_money()) {
            (Asset::Requests, _) => Some("1 requests".to_owned()),
            (_, money) => money.map(|money| money.to_string()),
        }
    }

    fn sold(&self, receipt: Receipt, posted: Units) -> Sold {
        let permit = &self.permit;
        let scheme = match &permit.means {
            Means::Credit { by, .. } => by.scheme(),
            Means::Exact(exact) => exact.scheme,
        };
        Sold {
            agent: self.payer.borrow().clone().unwrap_or_else(|| permit.agent.clone()),
            account: permit.account.clone(),
            scheme,
            payment: permit.key.to_string(),
            entry: receipt.n,
            units: posted.get(),
            asset: self.fund().asset.to_string(),
        }
    }
}

/// What so many ledger units of an asset are, in millionths of its currency.
pub fn millionths(core: &Core, asset: &Asset, units: Units) -> u64 {
    let tokens = &core.shared.config.exact.assets;
    let token = tokens.iter().find(|token| token.book == *asset);
    in_millionths(units, token.map_or(CURRENCY_DECIMALS, |token| token.decimals.min(TOKEN_DECIMALS_MAX)))
}

/// Of the ledger unit of a currency, and the most that one of a token has.
const CURRENCY_DECIMALS: u32 = 6;
const TOKEN_DECIMALS_MAX: u32 = 9;

/// What so many ledger units are, in millionths; a part of one is none.
fn in_millionths(units: Units, decimals: u32) -> u64 {
    let units = units.get().unsigned_abs();
    match decimals.checked_sub(CURRENCY_DECIMALS) {
        Some(more) => units / 10_u64.pow(more),
        None => units.saturating_mul(10_u64.pow(CURRENCY_DECIMALS - decimals)),
    }
}

/// Longest URL in a signed receipt: base64 twice, it has to fit into a field.
const RESOURCE_BYTES_MAX: usize = 2000;
/// What a payment on credit was charged: `0.004 USD`, `1 requests`.
const CHARGED: HeaderName = HeaderName::from_static("tollgate-charged");
/// What a crawl was charged.
const CRAWLER_CHARGED: HeaderName = HeaderName::from_static(crawl::CHARGED_FIELD);
/// The payment response of `deferred` and of x402 v2.
const PAYMENT_RESPONSE: HeaderName = HeaderName::from_static("payment-response");

/// What one agent paid for must not reach another from a shared cache.
pub fn make_private(headers: &mut HeaderMap) {
    let mut directives: Vec<String> = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|d| d.trim().to_owned())
        .filter(|d| !d.is_empty())
        .collect();
    let is = |d: &str, name: &str| d.split('=').next().is_some_and(|n| n.trim().eq_ignore_ascii_case(name));
    directives.retain(|d| !is(d, "public") && !is(d, "s-maxage") && !is(d, "private"));
    directives.insert(0, "private".to_owned());
    // Some caches in front obey these before Cache-Control.
    for name in
        ["cdn-cache-control", "cloudflare-cdn-cache-control", "surrogate-control", "x-accel-expires", "edge-control"]
    {
        headers.remove(name);
    }
    if let Ok(value) = HeaderValue::try_from(directives.join(", ")) {
        headers.insert(header::CACHE_CONTROL, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_any_decimals_are_counted_in_millionths() {
        let of = |units, decimals| in_millionths(Units::new(units).unwrap(), decimals);
        assert_eq!((of(10_000, 6), of(10_000_999, 9), of(5, 2)), (10_000, 10_000, 50_000));
    }

    #[test]
    fn a_paid_answer_is_private() {
        let check = |given: &[&str], expect: &str| {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(header::CACHE_CONTROL, value.parse().unwrap());
            }
            make_private(&mut headers);
            assert_eq!(headers.get(header::CACHE_CONTROL).unwrap(), expect, "{given:?}");
            assert_eq!(headers.get_all(header::CACHE_CONTROL).iter().count(), 1);
        };
        check(&[], "private");
        check(&["public, max-age=60"], "private, max-age=60");
        check(&["no-store"], "private, no-store");
        check(&["S-MaxAge=5", "must-revalidate"], "private, must-revalidate");
        check(&["private=\"set-cookie\", max-age=1"], "private, max-age=1");
    }
}
