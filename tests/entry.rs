//! How clients come in: TLS, Unix sockets, passed sockets, proxies in front, another configuration while they do.

mod support;

#[path = "entry/hand_on.rs"]
mod hand_on;
#[path = "entry/places.rs"]
mod places;
#[path = "entry/proxies.rs"]
mod proxies;
#[path = "entry/reload.rs"]
mod reload;
#[path = "entry/status.rs"]
mod status;
#[path = "entry/tls.rs"]
mod tls;
