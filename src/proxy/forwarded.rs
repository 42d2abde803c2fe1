//! Behind trusted proxies: the client as they describe it, and the request as it was sent to them.

use std::rc::Rc;

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Uri, header};

use super::connection::Client;
use super::core::Core;
use crate::config::ForwardedFields;
use crate::payment::reason::{Reason, Refusal};
use crate::wire::forwarded::Original;

/// Who asks, and with the request put back to what they asked for. Whoever is not trusted is the client itself.
///
/// # Errors
/// [`Reason::BadHost`] when a proxy names a host that is none.
pub fn original<B>(core: &Core, client: &Rc<Client>, request: &mut Request<B>) -> Result<Rc<Client>, Refusal> {
    let trust = &core.shared.config.server.trust;
    if !trust.includes(client.ip) {
        return Ok(client.clone());
    }
    let is_trusted = |ip| trust.includes(Some(ip));
    let original = match trust.fields {
        ForwardedFields::XForwarded => Original::of_x_forwarded(request.headers(), is_trusted),
        ForwardedFields::Forwarded => Original::of_forwarded(request.headers(), is_trusted),
    };
    if let Some(host) = original.host {
        set_host(request, host)?;
    }
    Ok(Rc::new(client.behind(original.ip, original.https)))
}

fn set_host<B>(request: &mut Request<B>, host: HeaderValue) -> Result<(), Refusal> {
    let bad = || Refusal::new(Reason::BadHost, "a proxy in front of the gateway names a host that is none");
    if request.uri().authority().is_some() {
        let mut parts = request.uri().clone().into_parts();
        parts.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_| bad())?);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad())?;
    }
    // Two of them stay two, and are refused as ever.
    if !has_several(request.headers()) {
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(())
}

fn has_several(headers: &HeaderMap) -> bool {
    headers.get_all(header::HOST).iter().nth(1).is_some()
}
