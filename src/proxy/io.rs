//! A client's socket: replays the bytes that told HTTP/1.1 from HTTP/2, and tells the meter what moves. Under TLS it is what
//! the encrypted bytes go through: only those tell what a client has taken.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::meter::Meter;
use super::socket::Socket;
use super::ticker::Timer;

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
pub const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's socket under its meter.
#[derive(Debug)]
pub struct ClientIo {
    socket: Socket,
    /// Bytes read while sniffing and not yet handed on.
    sniffed: Sniffed,
    meter: Rc<Meter>,
    linger: Linger,
}

/// Closing while the client still sends would reset the connection and lose the answer: stop writing, read on for a while.
#[derive(Debug)]
struct Linger {
    timer: Timer,
    /// Bytes that are still read; `None` before the close.
    left: Option<usize>,
}

/// Bytes and time given to a client that still sends while we close.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// The first bytes of a connection.
#[derive(Debug, Default)]
pub struct Sniffed {
    bytes: [u8; H2_PREFACE.len()],
    start: u8,
    end: u8,
}

impl Sniffed {
    /// Reads until the bytes are the HTTP/2 preface (true) or can't become it (false).
    ///
    /// # Errors
    /// When the socket fails or ends before a byte.
    pub async fn read(&mut self, socket: &mut Socket) -> io::Result<bool> {
        loop {
            let read = usize::from(self.end);
            if self.bytes[..read] != H2_PREFACE[..read] {
                return Ok(false);
            }
            if read == H2_PREFACE.len() {
                return Ok(true);
            }
            let n = socket.read(&mut self.bytes[read..]).await?;
            if n == 0 {
                // A part of the preface and then the end: let HTTP/1.1 say what is wrong with it.
                return if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(false) };
            }
            self.end += n as u8;
        }
    }
}

impl ClientIo {
    /// Puts a socket and what was read of it under a meter.
    pub fn new(socket: Socket, sniffed: Sniffed, meter: Rc<Meter>, linger: Timer) -> ClientIo {
        ClientIo { socket, sniffed, meter, linger: Linger { timer: linger, left: None } }
    }

    /// Reads and drops what the client still sends; ready at its end, or when it had its time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scrap = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut scrap);
            let read = Pin::new(&mut self.socket).poll_read(cx, &mut buf);
            let n = match read {
                Poll::Pending => return self.linger.timer.poll_due(cx).map(Ok),
                Poll::Ready(Err(_)) => 0,
                Poll::Ready(Ok(())) => buf.filled().len(),
            };
            let left = self.linger.left.unwrap_or(0).saturating_sub(n);
            self.linger.left = Some(left);
            if n == 0 || left == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(n)) => self.meter.on_written(*n),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.meter.on_blocked(),
        }
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        self.meter.on_gone();
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (start, end) = (usize::from(self.sniffed.start), usize::from(self.sniffed.end));
        if start < end {
            let n = (end - start).min(buf.remaining());
            buf.put_slice(&self.sniffed.bytes[start..start + n]);
            self.sniffed.start += n as u8;
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.meter.on_read();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.meter.on_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.left.is_none() {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            self.linger.left = Some(LINGER_BYTES);
            self.linger.timer.arm(LINGER_TIME);
        }
        self.poll_linger(cx)
    }
}

/// What HTTP is spoken over.
#[derive(Debug)]
pub enum ClientStream {
    /// As it is.
    Plain(ClientIo),
    /// Through TLS.
    Tls(Box<TlsStream<ClientIo>>),
}

/// Does the same with either.
macro_rules! either {
    ($self:expr, $stream:ident => $done:expr) => {
        match $self.get_mut() {
            ClientStream::Plain($stream) => $done,
            ClientStream::Tls($stream) => $done,
        }
    };
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            ClientStream::Plain(stream) => stream.is_write_vectored(),
            ClientStream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
