//! Nodes that come and go, for the benchmark of the sinks: EPMD is asked, a handshake is made, the connection ends, again and
//! again at a steady rate. Each part is a process of its own, for it runs on a host of its own.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

use super::super::measure::median;

/// Threads on each side: enough that one which waits for the other side holds up nobody.
const THREADS: usize = 4;

/// Names that come, so that links are told apart and do come again.
const NAMES: u64 = 50;

/// What the flags of an OTP 25 node are.
const FLAGS: u64 = 0x0d_07df_7fbd;

const EPMD: u16 = 4369;

/// How long a peer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A part of the traffic, or somebody who listens to what the daemon tells of it.
#[derive(Subcommand)]
pub(in super::super) enum Churn {
    /// Registers `db` at this host's EPMD, and answers handshakes until standard input ends.
    Serve { port: u16 },
    /// Comes and goes so many times a second.
    Come { server: Ipv4Addr, port: u16, rate: u64, seconds: u64 },
    /// Takes the daemon's events over HTTP until standard input ends, and says how long after their packets they came.
    Hear { daemon: SocketAddr },
}

/// Does its part.
pub(in super::super) fn run(churn: &Churn) -> Result<()> {
    match churn {
        Churn::Serve { port } => serve(*port),
        Churn::Come { server, port, rate, seconds } => come(*server, *port, *rate, *seconds),
        Churn::Hear { daemon } => hear(*daemon),
    }
}

fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let mut epmd = TcpStream::connect((Ipv4Addr::LOCALHOST, EPMD)).context("asking EPMD")?;
    let mut alive = vec![120];
    alive.extend(port.to_be_bytes());
    alive.extend([77, 0, 0, 6, 0, 5, 0, 2, b'd', b'b', 0, 0]);
    epmd.write_all(&framed(&alive))?;
    let mut answer = [0; 2];
    epmd.read_exact(&mut answer)?;
    ensure!(answer == [118, 0], "EPMD does not take the name: {answer:?}");
    for _ in 0..THREADS {
        let listener = listener.try_clone()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A peer that has gone is no fault of this side.
                let _ = accept(stream);
            }
        });
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn accept(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    read_framed(&mut stream)?;
    let mut answer = framed(b"sok");
    let name = b"db@10.77.0.2";
    let mut challenge = vec![b'N'];
    challenge.extend(FLAGS.to_be_bytes());
    challenge.extend([0, 0, 0, 7, 0, 0, 0, 9, 0, name.len() as u8]);
    challenge.extend(name);
    answer.extend(framed(&challenge));
    stream.write_all(&answer)?;
    read_framed(&mut stream)?;
    let mut ack = vec![b'a'];
    ack.extend([0; 16]);
    stream.write_all(&framed(&ack))?;
    // Until the other side closes.
    std::io::copy(&mut stream, &mut std::io::sink())?;
    Ok(())
}

fn come(server: Ipv4Addr, port: u16, rate: u64, seconds: u64) -> Result<()> {
    let (next, latest) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (next, latest) = (Arc::clone(&next), Arc::clone(&latest));
            thread::spawn(move || -> std::io::Result<u64> {
                let mut done = 0;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= rate * seconds {
                        return Ok(done);
                    }
                    let due = start + Duration::from_nanos(1_000_000_000 * number / rate);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    latest.fetch_max(due.elapsed().as_millis() as u64, Ordering::Relaxed);
                    ask(server)?;
                    visit(server, port, number % NAMES)?;
                    done += 1;
                }
            })
        })
        .collect();
    let mut done = 0;
    for thread in threads {
        done += thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    }
    println!("{done} {} {}", latest.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
    Ok(())
}

/// Asks EPMD where `db` listens.
fn ask(server: Ipv4Addr) -> std::io::Result<()> {
    let mut epmd = TcpStream::connect((server, EPMD))?;
    epmd.set_nodelay(true)?;
    epmd.set_read_timeout(Some(PATIENCE))?;
    epmd.write_all(&framed(b"\x7adb"))?;
    std::io::copy(&mut epmd, &mut std::io::sink())?;
    Ok(())
}

/// Makes a handshake, and leaves.
fn visit(server: Ipv4Addr, port: u16, number: u64) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((server, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = format!("web{number}@10.77.0.1");
    let mut hello = vec![b'N'];
    hello.extend(FLAGS.to_be_bytes());
    hello.extend([0, 0, 0, 7, 0, name.len() as u8]);
    hello.extend(name.as_bytes());
    stream.write_all(&framed(&hello))?;
    read_framed(&mut stream)?;
    read_framed(&mut stream)?;
    let mut reply = vec![b'r', 0, 0, 0, 1];
    reply.extend([0; 16]);
    stream.write_all(&framed(&reply))?;
    read_framed(&mut stream)?;
    Ok(())
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend(message);
    framed
}

fn read_framed(stream: &mut impl Read) -> std::io::Result<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)
}

fn hear(daemon: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(daemon)?;
    write!(stream, "GET /api/v1/events?types=epmd HTTP/1.1\r\nhost: {daemon}\r\n\r\n")?;
    let events = BufReader::new(stream);
    thread::spawn(|| {
        // Ends when whoever has started this says so.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let mut delays = Vec::new();
    let mut told = Instant::now();
    for line in events.lines() {
        let line = line?;
        if let Some(time) = line.strip_prefix("data: ").and_then(time_of_day) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() % DAY;
            delays.push((now - time).rem_euclid(DAY) * 1e3);
        }
        if told.elapsed() > Duration::from_secs(1) && !delays.is_empty() {
            told = Instant::now();
            delays.sort_by(f64::total_cmp);
            let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
            println!("{} {:.3} {:.3} {:.3}", delays.len(), median(delays.clone()), at(0.99), at(1.0));
        }
    }
    Ok(())
}

const DAY: f64 = 86_400.0;

/// When a record's packet came, in seconds of the day.
fn time_of_day(record: &str) -> Option<f64> {
    let (_, rest) = record.split_once("\"timestamp\":\"")?;
    let time = rest.get(11..)?.split('Z').next()?;
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
    Some(parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_record_is_read() {
        let record = r#"{"schema_version":1,"timestamp":"2026-11-25T01:02:03.500000000Z","event_type":"epmd"}"#;
        assert_eq!(time_of_day(record), Some(3723.5));
        assert_eq!(time_of_day("{}"), None);
    }
}
