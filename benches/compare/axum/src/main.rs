//! A shop made with x402-axum: `GET /paid/small` for 0.01 USDC, answered from memory. PORT, FACILITATOR_URL, PAY_TO.

use axum::Router;
use axum::routing::get;
use x402_axum::X402Middleware;
use x402_chain_eip155::{KnownNetworkEip155, V2Eip155Exact};
use x402_types::networks::USDC;

fn main() {
    let var = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let address: alloy_primitives::Address = var("PAY_TO").parse().expect("PAY_TO is no address");
    let price = USDC::base_sepolia().parse("0.01").expect("a price");
    let body: &'static str = Box::leak("x".repeat(1024).into_boxed_str());
    // One core, as all that it is measured beside.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let x402 = X402Middleware::new(&var("FACILITATOR_URL"));
        let paid = x402.with_price_tag(V2Eip155Exact::price_tag(address, price));
        let app = Router::new().route("/paid/small", get(move || async move { body }).layer(paid));
        let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{}", var("PORT"))).await.expect("a port");
        axum::serve(listener, app).await.expect("a server");
    });
}
