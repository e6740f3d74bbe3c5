//! Asks an EPMD of this host which nodes it knows: `epmd -names`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// An answer is read up to this length: some thousands of nodes.
const LONGEST_ANSWER: usize = 256 << 10;

/// `NAMES_REQ`.
const REQUEST: [u8; 3] = [0, 1, b'n'];

/// A node that is registered: its name without the host, and the port of its distribution.
pub type Registered = (String, u16);

/// Asks for the names.
///
/// # Errors
/// Nothing answers there, or not in time.
pub fn names(at: SocketAddr, within: Duration) -> io::Result<Vec<Registered>> {
    let deadline = Instant::now() + within;
    let mut stream = TcpStream::connect_timeout(&at, within)?;
    stream.set_write_timeout(Some(within))?;
    stream.write_all(&REQUEST)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while answer.len() < LONGEST_ANSWER {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => break,
            read => answer.extend(buffer.get(..read).unwrap_or_default()),
        }
    }
    // EPMD's own port comes first, in four octets.
    Ok(read(&String::from_utf8_lossy(answer.get(4..).unwrap_or_default())))
}

/// `name NAME at port PORT`, a line each.
fn read(text: &str) -> Vec<Registered> {
    text.lines()
        .filter_map(|line| {
            let (name, port) = line.strip_prefix("name ")?.rsplit_once(" at port ")?;
            Some((name.to_owned(), port.trim().parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn names_and_ports_are_read_and_the_rest_is_left() {
        let text = "name web at port 40000\nname a at port b at port 9\nname db at port x\nnonsense\n";
        assert_eq!(read(text), [("web".to_owned(), 40000), ("a at port b".to_owned(), 9)]);
    }

    #[test]
    fn one_that_never_answers_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = names(listener.local_addr().unwrap(), Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error:?}");
    }
}
