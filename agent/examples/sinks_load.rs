//! What sinks cost: so many records a second through every kind at once, to receivers in a process of their own.
//!
//! `cargo xtask bench sinks` runs it. Arguments: records a second, seconds, one alert among so many records. `receive DIR` is the
//! receivers alone, for a daemon whose configuration has what they write to `DIR/sinks.toml`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use distwatch::config;
use distwatch::record::{CommunityIds, Record};
use distwatch::sink::{Fate, Outgoing, Sinks};
use distwatch_engine::event::{Event, EventBody};
use distwatch_engine::model::{Alert, AlertStatus, Confidence, Evidence, Severity, Weird};
use distwatch_engine::packet::PacketRef;
use distwatch_engine::time::Timestamp;

type Error = Box<dyn std::error::Error>;

/// Alerts that differ: more than any host has at once.
const CONDITIONS: u64 = 1000;

/// How long the sinks may take for what is left at the end.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "receive") {
        return receive(Path::new(arguments.get(1).ok_or("no folder")?));
    }
    let number = |at: usize, default: u64| arguments.get(at).map_or(Ok(default), |text| text.parse());
    load(number(0, 10_000)?, number(1, 10)?, number(2, 100)?)
}

/// Takes whatever comes, writes sinks that lead there to `sinks.toml`, and says so.
fn receive(dir: &Path) -> Result<(), Error> {
    let http = TcpListener::bind("127.0.0.1:0")?;
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    let journal = UnixDatagram::bind(dir.join("journal"))?;
    let (http_at, udp_at) = (http.local_addr()?, udp.local_addr()?);
    let mut others = Vec::new();
    let syslog = match syslog_server(dir)? {
        Some((child, port)) => {
            others.push(child);
            port
        }
        None => {
            let stand_in = TcpListener::bind("127.0.0.1:0")?;
            let port = stand_in.local_addr()?.port();
            thread::spawn(move || {
                stand_in.incoming().flatten().for_each(|stream| drop(thread::spawn(move || swallow(stream))));
            });
            port
        }
    };
    let broker = broker(dir)?;
    let nats = broker.as_ref().map(|(_, port)| *port);
    others.extend(broker.map(|(child, _)| child));
    fs::write(dir.join("sinks.toml"), sinks_toml(dir, &http_at, syslog, &udp_at, nats))?;
    println!("ready");
    thread::spawn(move || http.incoming().flatten().for_each(|stream| drop(thread::spawn(move || answer(&stream)))));
    thread::spawn(move || while udp.recv(&mut [0; 65_536]).is_ok() {});
    thread::spawn(move || while journal.recv(&mut [0; 65_536]).is_ok() {});
    // Until whoever has started this is gone.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    for mut child in others {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

/// Takes every request.
fn answer(stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
        (&*stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

fn swallow(mut stream: TcpStream) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// A port that nobody has just now.
fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits for a server to listen.
fn connect(port: u16) -> Result<TcpStream, Error> {
    let start = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return Ok(stream),
            Err(error) if start.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// rsyslog over TCP, into a file, where it is installed.
fn syslog_server(dir: &Path) -> Result<Option<(Child, u16)>, Error> {
    let port = free_port()?;
    let config = dir.join("rsyslog.conf");
    let text = format!(
        "global(workDirectory={dir:?} maxMessageSize=\"64k\")\nmodule(load=\"imtcp\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\naction(type=\"omfile\" file={:?})\n",
        dir.join("rsyslog.out")
    );
    fs::write(&config, text)?;
    let mut command = Command::new("rsyslogd");
    command.arg("-n").arg("-f").arg(config).arg("-i").arg(dir.join("rsyslog.pid"));
    let Ok(child) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else { return Ok(None) };
    connect(port)?;
    Ok(Some((child, port)))
}

/// A broker with a stream, where nats-server is installed.
fn broker(dir: &Path) -> Result<Option<(Child, u16)>, Error> {
    let port = free_port()?;
    let mut command = Command::new("nats-server");
    command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(dir.join("jetstream"));
    let Ok(child) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else { return Ok(None) };
    let mut stream = connect(port)?;
    let body = r#"{"name":"S","subjects":["distwatch.>"],"storage":"file","max_bytes":1000000000}"#;
    write!(
        stream,
        "CONNECT {{\"verbose\":false}}\r\nPUB $JS.API.STREAM.CREATE.S {}\r\n{body}\r\nPING\r\n",
        body.len()
    )?;
    let mut lines = BufReader::new(stream).lines();
    while lines.next().ok_or("no answer of nats-server")?? != "PONG" {}
    Ok(Some((child, port)))
}

fn load(rate: u64, seconds: u64, alert_every: u64) -> Result<(), Error> {
    let dir = std::env::temp_dir().join(format!("distwatch-sinks-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let mut receiver = Command::new(std::env::current_exe()?)
        .arg("receive")
        .arg(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(receiver.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let file = dir.join("sinks.toml");
    let settings = config::load(Some(&file))?.config.sinks;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sinks = Arc::new(Sinks::start(&settings, &dir, "bench", runtime.handle())?);
    let (done, finished) = tokio::sync::oneshot::channel();
    let driven = Arc::clone(&sinks);
    let idle = memory("VmRSS")?;
    let offering = thread::spawn(move || {
        let result = offer(&driven, rate, seconds, alert_every);
        let _ = done.send(());
        result
    });
    // The sinks' tasks run here, all on one thread, as in the daemon.
    let (left, drained) = runtime.block_on(async {
        let _ = finished.await;
        let start = Instant::now();
        (sinks.flush(PATIENCE).await, start.elapsed())
    });
    let mut times = offering.join().map_err(|_| "the offering thread panicked")?;
    report(&sinks, &mut times, rate, seconds, alert_every, idle, drained)?;
    drop(receiver.stdin.take());
    receiver.wait()?;
    fs::remove_dir_all(dir)?;
    if left.is_empty() { Ok(()) } else { Err(format!("records were left: {left:?}").into()) }
}

fn sinks_toml(dir: &Path, http: &SocketAddr, syslog: u16, udp: &SocketAddr, nats: Option<u16>) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    let mut toml = format!(
        "[[sink]]\ntype = \"file\"\npath = \"{}\"\nrotate_size = \"8 MiB\"\nkeep = 1\n\
         [[sink]]\ntype = \"file\"\nname = \"ecs\"\nformat = \"ecs\"\npath = \"{}\"\nrotate_size = \"8 MiB\"\nkeep = 1\n\
         [[sink]]\ntype = \"journald\"\nsocket = \"{}\"\n\
         [[sink]]\ntype = \"syslog\"\naddress = \"127.0.0.1:{syslog}\"\n\
         [[sink]]\ntype = \"syslog\"\nname = \"udp\"\ntransport = \"udp\"\naddress = \"{udp}\"\n\
         [[sink]]\ntype = \"loki\"\nurl = \"http://{http}\"\n\
         [[sink]]\ntype = \"alertmanager\"\nurl = \"http://{http}\"\n\
         [[sink]]\ntype = \"webhook\"\nurl = \"http://{http}\"\nevents = [\"*\"]\nbatch_records = 500\n\
         [[sink]]\ntype = \"otlp\"\nurl = \"http://{http}\"\n",
        path("native.ndjson"),
        path("ecs.ndjson"),
        path("journal"),
    );
    if let Some(port) = nats {
        toml += &format!("[[sink]]\ntype = \"nats\"\nurl = \"nats://127.0.0.1:{port}\"\n");
    }
    toml
}

/// Offers at a steady rate, and measures how long each offer takes.
fn offer(sinks: &Sinks, rate: u64, seconds: u64, alert_every: u64) -> Vec<Duration> {
    let mut ids = CommunityIds::default();
    let mut times = Vec::with_capacity(usize::try_from(rate * seconds).unwrap_or(0));
    let start = Instant::now();
    for number in 0..rate * seconds {
        let record = match number % alert_every {
            0 => Outgoing::new(&Record::from_alert(&alert(number), "bench", &mut ids)),
            _ => {
                let event = event(number);
                let Some(record) = Record::from_event(&event, "bench", &mut ids) else { continue };
                Outgoing::new(&record)
            }
        };
        let record = Arc::new(record);
        let due = start + Duration::from_nanos(1_000_000_000 * number / rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let before = Instant::now();
        sinks.offer(&record);
        times.push(before.elapsed());
    }
    times
}

fn report(
    sinks: &Sinks,
    times: &mut [Duration],
    rate: u64,
    seconds: u64,
    alert_every: u64,
    idle: u64,
    drained: Duration,
) -> Result<(), Error> {
    times.sort_unstable();
    let at = |share: f64| times.get(((times.len() - 1) as f64 * share) as usize).copied().unwrap_or_default();
    println!("{rate} records/s for {seconds} s, one of {alert_every} an alert");
    println!("offer: median {:?}, 99 % {:?}, 99.9 % {:?}, longest {:?}", at(0.5), at(0.99), at(0.999), at(1.0));
    println!("memory: {} MiB before, {} MiB at most", idle / 1024, memory("VmHWM")? / 1024);
    println!(
        "processor: {:.2} of a core; the rest was sent {drained:.1?} after the last record",
        cpu()? / seconds as f64
    );
    for status in sinks.status() {
        let lost = Fate::ALL.into_iter().filter(|fate| fate.is_loss() && status.count(*fate) > 0);
        let lost: String = lost.map(|fate| format!(", {} {}", status.count(fate), fate.name())).collect();
        println!("  {:12} {:7} sent, {} queued{lost}", status.name, status.count(Fate::Sent), status.queued);
    }
    Ok(())
}

/// A line of `/proc/self/status`, in kilobytes.
fn memory(name: &str) -> Result<u64, Error> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).ok_or("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Seconds of processor time so far.
fn cpu() -> Result<f64, Error> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().ok_or("no fields")?.split_whitespace().collect();
    // User and system time in ticks, of which Linux has a hundred a second everywhere.
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn alert(number: u64) -> Alert {
    let at = Timestamp::from_parts(1_795_406_329, 0);
    Alert {
        rule_id: "cleartext-distribution".into(),
        severity: Severity::High,
        level: "error".into(),
        status: AlertStatus::Update,
        fingerprint: format!("{:016x}", number % CONDITIONS),
        count: number,
        first_seen: at,
        last_seen: at,
        told: at,
        subject: format!("web@host-{} -> db@host-b", number % CONDITIONS),
        reason: "The link web@host-a -> db@host-b runs in clear".into(),
        evidence: vec![Evidence { fact: "a handshake in clear".into(), packet: Some("31".into()), timestamp: at }],
        confidence: Confidence::Certain,
        remediation: "Run distribution over TLS: -proto_dist inet_tls with verify_peer on both sides.".into(),
        references: vec!["G1".into(), "G4".into()],
        flow_id: Some("00a1b2c3d4e5f607".into()),
        src_ip: Some([10, 77, 0, 1].into()),
        src_port: Some(40123),
        dest_ip: Some([10, 77, 0, 2].into()),
        dest_port: Some(9100),
        in_iface: Some("eth0".into()),
        process: None,
        process_end: None,
    }
}

fn event(number: u64) -> Event {
    let weird = Weird {
        name: "gap".into(),
        layer: "tcp".into(),
        detail: format!("{number} octets of the link web@host-a -> db@host-b were never seen; {}", "x".repeat(300)),
        packet: Some(number.to_string()),
    };
    let time = Timestamp::from_nanos(1_795_406_329_000_000_000 + i64::try_from(number).unwrap_or(0));
    Event { time, packet: PacketRef::default(), flow: None, body: EventBody::Weird(weird) }
}
