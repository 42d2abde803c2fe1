//! The pure parts of the hot path: an offer, the verification of a payment, the gate's decision on a free and a priced path.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ed25519_dalek::{Signer as _, SigningKey};
use http::{HeaderMap, HeaderName, Request};
use tollgate::payment::deferred;
use tollgate::payment::id::{Resource, SealedId};
use tollgate::payment::offer::{DeferredTerms, Forms, PreparedOffer, Sold, Way};
use tollgate::payment::pieces::Filling;
use tollgate::payment::presented::{Presented, presented};
use tollgate::payment::reason::Reason;
use tollgate::payment::secrets::Secrets;
use tollgate::payment::signed::Rules;
use tollgate::payment::terms::Terms;
use tollgate::pricing::{RouteSpec, Site, Table};
use tollgate::proxy::target::Target;
use tollgate::wire::amount::Money;
use tollgate::wire::jwk::{Jwk, thumbprint};
use tollgate::wire::signature::{Component, ComponentName, Part, RequestView, SignatureDraft, SignatureParams};

const NOW_MS: u64 = 1_700_000_000_000;
const RESOURCE: Resource<'static> =
    Resource { method: "GET", authority: "www.example.com", path: "/articles/1", query: "", tool: "" };

fn offer() -> PreparedOffer {
    let terms = DeferredTerms {
        network: "tollgate:deferred".into(),
        pay_to: "merchant".into(),
        terms_url: "https://example.com/terms".into(),
    };
    let sold = Sold { description: Some("An article"), mime_type: Some("text/html"), ..Sold::default() };
    let forms = Forms { v1: true, signed: false };
    PreparedOffer::new(Money::parse("0.01 USD").unwrap(), 300, &[Way::Deferred(terms)], forms, sold)
}

fn secrets() -> Secrets {
    Secrets::parse(&Secrets::new_file([7; 32])).unwrap()
}

fn seal(secrets: &Secrets, offer: &PreparedOffer) -> SealedId {
    let entry = &offer.entries[0];
    SealedId::seal(secrets, NOW_MS, [1; 7], &entry.term, entry.amount, &RESOURCE).unwrap()
}

fn offers(c: &mut Criterion) {
    let (secrets, offer) = (secrets(), offer());
    let url = "https://www.example.com/articles/1";
    c.bench_function("offer_deferred_body_and_field", |b| {
        b.iter(|| {
            let ids = [seal(&secrets, black_box(&offer)).to_text()];
            let reason = Reason::PaymentRequired;
            let filling =
                Filling { resource: url, ids: &ids, signed: &[], error: reason.code(), message: reason.meaning() };
            (offer.body(&filling, false), offer.field(&filling))
        });
    });
}

fn view(headers: &HeaderMap) -> RequestView<'_> {
    RequestView {
        method: "GET",
        scheme: "https",
        authority: "www.example.com",
        path: "/articles/1",
        query: None,
        headers,
    }
}

fn verification(c: &mut Criterion) {
    let (secrets, offer, key) = (secrets(), offer(), SigningKey::from_bytes(&[9; 32]));
    let id = seal(&secrets, &offer).to_text();
    let mut headers = HeaderMap::new();
    headers.insert("payment", format!(r#"scheme="deferred", network="tollgate:deferred", id="{id}""#).parse().unwrap());
    headers.insert("signature-agent", r#"sig1="https://signer.example.com""#.parse().unwrap());
    let whole = Component::whole;
    let field = |name| ComponentName::Field(HeaderName::from_static(name));
    let draft = SignatureDraft {
        label: "sig1".into(),
        components: vec![
            whole(ComponentName::Authority),
            whole(ComponentName::Method),
            whole(ComponentName::Path),
            whole(field("payment")),
            Component { name: field("signature-agent"), part: Part::Member("sig1".into()) },
        ],
        params: SignatureParams {
            created: Some(1_700_000_000),
            expires: Some(1_700_000_060),
            keyid: Some(thumbprint(&key.verifying_key())),
            tag: Some("web-bot-auth".into()),
            ..SignatureParams::default()
        },
    };
    let unsigned = headers.clone();
    let (input, base) = draft.prepare(&view(&unsigned)).unwrap();
    let signature =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key.sign(base.as_bytes()).to_bytes());
    headers.insert("signature-input", input.parse().unwrap());
    headers.insert("signature", format!("sig1=:{signature}:").parse().unwrap());
    let mut terms = Terms::default();
    terms.insert(offer.entries[0].term.clone());
    let rules =
        Rules { skew: 30, window: 86_400, require_authority: false, require_path: false, lenient_signature: true };
    let check = |headers: &HeaderMap| {
        let Ok(Presented::Payment(payment)) = presented(headers) else { panic!("no payment") };
        deferred::check(&payment, &RESOURCE, &view(headers), (&secrets, &terms, &rules), NOW_MS).unwrap()
    };
    let public = Jwk::from_public(&key.verifying_key()).public_key(false).unwrap();
    c.bench_function("verify_deferred_all_but_the_curve", |b| b.iter(|| check(black_box(&headers))));
    c.bench_function("verify_ed25519_strict", |b| {
        b.iter(|| {
            let claimed = check(&headers);
            let candidate = &claimed.candidates[0];
            assert!(public.verifies(candidate.base.as_bytes(), &candidate.signature));
        });
    });
}

fn decisions(c: &mut Criterion) {
    let route = |index, path: &str, priced| RouteSpec {
        index,
        host: None,
        path: path.into(),
        methods: vec![],
        priced,
        case_insensitive: false,
    };
    let mut routes =
        vec![route(0, "/articles/*", true), route(1, "/api/{user}/posts", true), route(2, "/articles/free", false)];
    routes.extend((3..103).map(|i| route(i, &format!("/section-{i}/*"), i % 2 == 0)));
    let table = Table::compile(&routes, &Site::default()).unwrap();
    for (name, path) in [
        ("free", "/about/us"),
        ("priced", "/articles/1"),
        ("named", "/api/7/posts"),
        ("escaped", "/articles/%61%2d%c3%a9"),
    ] {
        let request = Request::get(path).header("host", "www.example.com").body(()).unwrap();
        c.bench_function(&format!("gate_decision_{name}_103_routes"), |b| {
            b.iter(|| {
                let target = Target::of(black_box(&request), true, 8192, |host| table.has_priced(host)).unwrap();
                (
                    matches!(table.find(target.host(), target.path(), "GET"), tollgate::pricing::Found::Free),
                    presented(request.headers()).is_ok(),
                )
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).measurement_time(std::time::Duration::from_secs(2));
    targets = offers, verification, decisions
}
criterion_main!(benches);
