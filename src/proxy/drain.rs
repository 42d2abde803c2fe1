//! Early answers: what a client still sends is read and dropped within bounds, or the connection ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use http::{Request, header};
use http_body::Body;
use hyper::body::Incoming;

use super::core::Core;

/// Most bytes of a refused request's body that are read so that its connection can serve another request.
const BYTES_MAX: usize = 64 * 1024;
/// How long that may take.
const TIME_MAX: Duration = Duration::from_secs(1);

/// Reads a small body away, so that the answer reaches the client and the connection stays usable; leaves a larger one to
/// the HTTP layer, which ends the connection.
pub async fn request_body(core: &Core, request: Request<Incoming>) {
    // A client that waits for 100 has sent nothing, and must not be asked to.
    if request.body().is_end_stream() || request.headers().contains_key(header::EXPECT) {
        return;
    }
    if request.body().size_hint().lower() > BYTES_MAX as u64 {
        return;
    }
    let reading = Box::pin(read_away(request.into_body()));
    let _ = core.thread.ticker.timeout(TIME_MAX, reading).await;
}

async fn read_away(mut body: Incoming) {
    let mut bytes = 0;
    while bytes <= BYTES_MAX {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, bytes::Bytes::len),
            Some(Err(_)) | None => return,
        }
    }
}
