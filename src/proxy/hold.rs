//! Takes an answer's body before the answer is given, within bounds: `settle = "after_body"`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, timeout_at};

/// What became of a body that was to be taken whole.
#[derive(Debug)]
pub enum Hold<E> {
    /// All of it is here.
    Whole(Held),
    /// More than the cap, or the time is up: the rest still has to come.
    Over(Held),
    /// It broke off.
    Cut(E),
}

/// What was taken of a body, in the order in which it is given on.
#[derive(Debug)]
pub struct Held {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
    /// Nothing comes after it.
    whole: bool,
}

impl Held {
    /// These bytes, and whether nothing comes after them.
    pub fn of(bytes: Bytes, whole: bool) -> Held {
        Held { bytes, trailers: None, whole }
    }

    /// The next of it.
    pub fn frame(&mut self) -> Option<Frame<Bytes>> {
        if self.bytes.is_empty() {
            return self.trailers.take().map(Frame::trailers);
        }
        Some(Frame::data(std::mem::take(&mut self.bytes)))
    }

    /// Whether nothing of it is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.trailers.is_none()
    }

    /// Whether it was all there is.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The bytes that are left of it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its size with that of what follows. Where trailers follow nothing is said, for a length in front would cut them off.
    pub fn hint(&self, rest: &SizeHint) -> SizeHint {
        let length = self.bytes.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(length));
        if let Some(upper) =
            rest.upper().filter(|_| self.trailers.is_none()).and_then(|upper| upper.checked_add(length))
        {
            hint.set_upper(upper);
        }
        hint
    }
}

/// Takes a body of at most `cap` bytes, for at most `patience`. One that says that it is longer is left alone.
pub async fn hold<B: Body<Data = Bytes> + Unpin>(body: &mut B, cap: usize, patience: Duration) -> Hold<B::Error> {
    let mut bytes = BytesMut::new();
    let over = |bytes: BytesMut| Hold::Over(Held { bytes: bytes.freeze(), trailers: None, whole: false });
    let promised = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if promised > cap {
        return over(bytes);
    }
    bytes.reserve(promised);
    let until = Instant::now() + patience;
    let mut trailers = None;
    while !body.is_end_stream() {
        let next = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx));
        let frame = match timeout_at(until, next).await {
            Err(_) => return over(bytes),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Hold::Cut(error),
            Ok(Some(Ok(frame))) => frame,
        };
        // Copied: many small frames would each keep the whole buffer that they were read into.
        match frame.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if bytes.len() > cap {
            return over(bytes);
        }
    }
    Hold::Whole(Held { bytes: bytes.freeze(), trailers, whole: true })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;

    /// A body that sends these, then breaks off, stays silent or ends.
    struct Made {
        frames: VecDeque<Frame<Bytes>>,
        end: End,
        promised: u64,
    }

    #[derive(Clone, Copy)]
    enum End {
        Ends,
        Cuts,
        Waits,
    }

    impl Body for Made {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match (self.frames.pop_front(), self.end) {
                (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
                (None, End::Ends) => Poll::Ready(None),
                (None, End::Cuts) => Poll::Ready(Some(Err("cut"))),
                (None, End::Waits) => Poll::Pending,
            }
        }

        fn size_hint(&self) -> http_body::SizeHint {
            let mut hint = http_body::SizeHint::new();
            hint.set_lower(self.promised);
            hint
        }
    }

    fn made(parts: &[&'static str], end: End) -> Made {
        Made {
            frames: parts.iter().map(|part| Frame::data(Bytes::from_static(part.as_bytes()))).collect(),
            end,
            promised: 0,
        }
    }

    fn text(held: &mut Held) -> String {
        let frame = held.frame().and_then(|frame| frame.into_data().ok()).unwrap_or_default();
        String::from_utf8(frame.to_vec()).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_fits_is_whole_and_comes_back_as_it_was() {
        let mut body = made(&["ab", "", "cd"], End::Ends);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        body.frames.push_back(Frame::trailers(trailers.clone()));
        let Hold::Whole(mut held) = hold(&mut body, 4, LONG).await else { panic!("not whole") };
        let none = SizeHint::with_exact(0);
        assert_eq!((held.is_whole(), held.hint(&none).lower(), held.hint(&none).upper()), (true, 4, None));
        assert_eq!(text(&mut held), "abcd");
        assert_eq!(held.frame().and_then(|frame| frame.into_trailers().ok()), Some(trailers));
        assert!(held.is_empty() && held.frame().is_none());
        let Hold::Whole(held) = hold(&mut made(&[], End::Ends), 0, LONG).await else { panic!("not whole") };
        assert_eq!((held.is_empty(), held.hint(&none).exact()), (true, Some(0)));
    }

    #[tokio::test]
    async fn one_byte_too_many_leaves_the_rest_where_it_is() {
        let mut body = made(&["abc", "de", "rest"], End::Ends);
        let Hold::Over(mut held) = hold(&mut body, 4, LONG).await else { panic!("not over") };
        assert_eq!((held.is_whole(), text(&mut held).as_str(), body.frames.len()), (false, "abcde", 1));
        let mut body = Made { promised: 5, ..made(&["abcde"], End::Ends) };
        let Hold::Over(held) = hold(&mut body, 4, LONG).await else { panic!("not over") };
        assert!(held.is_empty() && body.frames.len() == 1, "its length was known before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_breaks_off_is_cut_and_one_that_takes_too_long_is_over() {
        let cut = hold(&mut made(&["ab"], End::Cuts), 4, LONG).await;
        assert!(matches!(cut, Hold::Cut("cut")), "{cut:?}");
        let started = Instant::now();
        let Hold::Over(held) = hold(&mut made(&["ab"], End::Waits), 4, LONG).await else { panic!("not over") };
        assert_eq!((held.bytes().len(), started.elapsed() >= LONG), (2, true));
    }
}
