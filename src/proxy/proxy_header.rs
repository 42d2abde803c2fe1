//! The PROXY protocol: a trusted load balancer says first whom it speaks for (haproxy.org, `proxy-protocol.txt`).

use std::io;
use std::net::IpAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes before those of version 2 that its length counts.
const FIXED: usize = 16;
/// The shortest of all: `PROXY UNKNOWN\r\n`.
const SHORTEST: usize = 15;
/// The longest line of version 1.
const LINE_MAX: usize = 107;
/// The longest header of version 2 that is read: addresses and a few kilobytes of further values.
const BYTES_MAX: usize = 4096;

/// Reads a header, and not a byte behind it. None: the connection is the proxy's own (`LOCAL`, `UNKNOWN`).
///
/// # Errors
/// When there is none, or it is malformed: whoever should send one and does not is not to be listened to.
pub async fn read(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut bytes = vec![0; SHORTEST];
    socket.read_exact(&mut bytes).await?;
    if bytes.starts_with(SIGNATURE) {
        bytes.push(socket.read_u8().await?);
        let length = usize::from(u16::from_be_bytes([bytes[FIXED - 2], bytes[FIXED - 1]]));
        if FIXED + length > BYTES_MAX {
            return Err(malformed());
        }
        bytes.resize(FIXED + length, 0);
        socket.read_exact(&mut bytes[FIXED..]).await?;
    } else {
        if !bytes.starts_with(b"PROXY ") {
            return Err(malformed());
        }
        // A byte at a time: what follows belongs to somebody else.
        while bytes.last() != Some(&b'\n') && bytes.len() < LINE_MAX {
            bytes.push(socket.read_u8().await?);
        }
    }
    let (header, length) = ProxyHeader::parse(&bytes, ParseConfig::default()).map_err(|_| malformed())?;
    if length != bytes.len() {
        return Err(malformed());
    }
    Ok(header.proxied_address().map(|address| address.source.ip().to_canonical()))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no header of the PROXY protocol")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(bytes: &[u8]) -> (io::Result<Option<IpAddr>>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut left = bytes;
        let read = runtime.block_on(read(&mut left));
        (read, left.to_vec())
    }

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    #[test]
    fn what_follows_stays() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0xC0, 0x01, 0x01, 0xBB];
        let v6 = [[0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], [0; 16]].concat();
        let cases: [(Vec<u8>, Option<&str>); 6] = [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 49153 443\r\n".to_vec(), Some("192.0.2.7")),
            (b"PROXY TCP6 2001:db8::9 ::1 49153 443\r\n".to_vec(), Some("2001:db8::9")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (version_2(0x21, 0x11, &v4), Some("192.0.2.7")),
            (version_2(0x21, 0x21, &[&v6[..], &[0, 1, 1, 0xBB], &[4, 0, 1, 0]].concat()), Some("2001:db8::9")),
            (version_2(0x20, 0x00, &[]), None),
        ];
        for (header, peer) in cases {
            let (read, left) = run(&[&header[..], b"GET / HTTP/1.1\r\n"].concat());
            assert_eq!(read.unwrap(), peer.map(|peer| peer.parse().unwrap()), "{header:?}");
            assert_eq!(left, b"GET / HTTP/1.1\r\n");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let cases: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 49153\r\nGET / HTTP/1.1\r\n",
            b"PROXY TCP4 2001:db8::9 ::1 49153 443\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 443\r\n",
            b"PROXY TCP4 192.0.2.7 ",
            &[b'P'; 300],
        ];
        for bytes in cases {
            assert!(run(bytes).0.is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
        let endless = [b"PROXY UNKNOWN".as_slice(), &[b'x'; 300]].concat();
        assert!(run(&endless).0.is_err());
        assert!(run(&version_2(0x21, 0x11, &[0; 5000])).0.is_err(), "longer than what is read");
        assert!(run(&version_2(0x21, 0x11, &[0; 4])).0.is_err(), "too short for its addresses");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3) {
            let start: &[u8] = match kind { 0 => b"PROXY ", 1 => SIGNATURE, _ => b"" };
            let _ = run(&[start, &bytes].concat());
        }
    }
}
