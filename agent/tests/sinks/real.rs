//! The servers themselves, as Debian packages them: each holds every record that was sent to it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use distwatch::sink::Fate;
use distwatch_engine::model::AlertStatus;
use serde_json::{Value, json};

use crate::child::Offering;
use crate::faults::{QUICK, RECORDS, offer};
use crate::harness::{Running, account, alert, losses, numbers_in, outgoing, settle, settle_in, wait_for};
use crate::standin::{counts, free_port};

/// A server of somebody else's, killed when dropped.
struct Server(Child);

impl Server {
    /// `None`, after saying so, where it is not installed.
    fn start(program: &str, arguments: &[&str]) -> Option<Self> {
        let child = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        if child.is_err() {
            eprintln!("*** NOT CHECKED: {program} is not installed (`cargo xtask setup` installs it)");
        }
        child.ok().map(Self)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until_listening(port: u16) {
    wait_for("the server", || TcpStream::connect(("127.0.0.1", port)).ok());
}

fn get(port: u16, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

#[test]
fn alertmanager_receives_keeps_and_resolves() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("alertmanager.yml");
    fs::write(&config, "route: { receiver: none }\nreceivers: [{ name: none }]\n").unwrap();
    let (port, lonely) = (free_port(), free_port());
    let start = || {
        let storage = format!("--storage.path={}", dir.path().join("data").display());
        let config = format!("--config.file={}", config.display());
        let listen = format!("--web.listen-address=127.0.0.1:{port}");
        Server::start("prometheus-alertmanager", &[&config, &storage, &listen, "--cluster.listen-address="])
    };
    let Some(server) = start() else { return };
    until_listening(port);
    // The second peer is away all the time; that is no failure of the sink.
    let toml = format!(
        "[[sink]]\ntype = \"alertmanager\"\nurl = [\"http://127.0.0.1:{port}\", \"http://127.0.0.1:{lonely}\"]\n\
         resend = \"200ms\"\nlabels = {{ env = \"test\" }}\n{QUICK}"
    );
    let running = Running::start(dir.path(), &toml);
    running.offer(0..20);
    let status = running.until_sent("alertmanager");
    assert_eq!((status.count(Fate::Sent), losses(&status)), (20, 0));
    let active = || get(port, "/api/v2/alerts").filter(|alerts| alerts.as_array().map(Vec::len) == Some(20));
    let alerts = wait_for("the alerts", active);
    let first = &alerts[0];
    assert_eq!(first["labels"]["alertname"], "CleartextDistribution");
    assert_eq!(first["labels"]["severity"], "critical");
    assert_eq!(first["labels"]["from_node"], "web@host-a");
    assert_eq!(first["annotations"]["remediation"], "Run distribution over TLS.");
    assert_eq!(first["status"]["state"], "active");
    // It forgets everything, and hears of it again by the next repeats.
    server.kill();
    fs::remove_dir_all(dir.path().join("data")).unwrap();
    let _server = start().unwrap();
    until_listening(port);
    wait_for("the alerts to be said again", active);
    let mut ended = alert(3);
    ended.status = AlertStatus::Resolved;
    running.sinks.offer(&outgoing(&ended));
    let gone = |alerts: &Value| {
        let alerts = alerts.as_array().unwrap();
        let fingerprint = format!("{:016x}", 3);
        alerts.len() == 19 && alerts.iter().all(|alert| alert["labels"]["fingerprint"] != fingerprint.as_str())
    };
    wait_for("the end", || get(port, "/api/v2/alerts").filter(gone));
    wait_for("an empty queue", || (running.status("alertmanager").queued == 0).then_some(()));
}

/// As much of NATS as it takes to make a stream and to read it.
struct Nats(BufReader<TcpStream>);

impl Nats {
    fn connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut nats = Self(BufReader::new(stream));
        nats.line();
        let login = r#"{"verbose":false,"user":"sensor","pass":"hunter2"}"#;
        write!(nats.0.get_mut(), "CONNECT {login}\r\nSUB _INBOX.test 1\r\nPING\r\n").ok()?;
        while nats.line() != "PONG" {}
        Some(nats)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, subject: &str, body: &Value) -> Value {
        let body = body.to_string();
        write!(self.0.get_mut(), "PUB {subject} _INBOX.test {}\r\n{body}\r\n", body.len()).unwrap();
        loop {
            let line = self.line();
            if let Some(words) = line.strip_prefix("MSG ") {
                let octets: usize = words.rsplit(' ').next().unwrap().parse().unwrap();
                let mut answer = vec![0; octets + 2];
                self.0.read_exact(&mut answer).unwrap();
                return serde_json::from_slice(&answer[..octets]).unwrap();
            }
        }
    }

    /// The numbers of all records in the stream, in its order.
    fn numbers(&mut self) -> Vec<u64> {
        let info = self.ask("$JS.API.STREAM.INFO.S", &json!({}));
        let last = info["state"]["last_seq"].as_u64().unwrap_or(0);
        let number = |sequence: u64, nats: &mut Self| {
            let message = nats.ask("$JS.API.STREAM.MSG.GET.S", &json!({ "seq": sequence }));
            let data = message["message"]["data"].as_str().unwrap().to_owned();
            counts(&base64::engine::general_purpose::STANDARD.decode(data).unwrap())[0]
        };
        (1..=last).map(|sequence| number(sequence, self)).collect()
    }
}

#[test]
fn a_stream_of_nats_has_every_record_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = dir.path().join("nats.conf");
    let store = dir.path().join("jetstream");
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?} }}\n\
         authorization {{ user: sensor, password: hunter2 }}\n"
    );
    fs::write(&config, text).unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "hunter2\n").unwrap();
    let start = || Server::start("nats-server", &["-c", config.to_str().unwrap()]);
    let Some(server) = start() else { return };
    let toml = format!(
        "[[sink]]\ntype = \"nats\"\nurl = \"nats://127.0.0.1:{port}\"\nuser = \"sensor\"\npassword_file = {secret:?}\n\
         timeout = \"2s\"\n{QUICK}"
    );
    until_listening(port);
    let mut offering = Offering::start(dir.path(), &toml);
    // There is no stream yet: nothing is lost by that.
    let first = offer(&mut offering, 0);
    offering.until_offered(first - 1);
    let made = Nats::connect(port)
        .unwrap()
        .ask("$JS.API.STREAM.CREATE.S", &json!({ "name": "S", "subjects": ["distwatch.>"] }));
    assert!(made["error"].is_null(), "{made}");
    let stored = |below: u64| {
        wait_for("the stream to have all", || {
            let info = Nats::connect(port)?.ask("$JS.API.STREAM.INFO.S", &json!({}));
            (info["state"]["messages"].as_u64() >= Some(below)).then_some(())
        });
    };
    stored(first);
    settle("nats (nats-server)", "has no stream yet", first, &Nats::connect(port).unwrap().numbers());
    // The server is killed and comes back; so are we.
    server.kill();
    let second = offer(&mut offering, first);
    offering.until_offered(second - 1);
    let memory = offering.peak_memory();
    offering.kill();
    let server = start().unwrap();
    until_listening(port);
    let mut offering = Offering::start(dir.path(), &toml);
    stored(second);
    settle_in(memory, "nats (nats-server)", "killed, and kill -9", second, &Nats::connect(port).unwrap().numbers());
    offering.offer(second..second + RECORDS);
    offering.end();
    let received = Nats::connect(port).unwrap().numbers();
    let account = account(second + RECORDS, &received);
    assert_eq!((account.lost, account.out_of_order), (0, 0), "{account:?}");
    assert_eq!(account.duplicated, 0, "the stream drops repeats by their id");
    drop(server);
}

fn rsyslog(dir: &Path, port: u16, input: &str, out: &Path) -> Option<Server> {
    let config = dir.join("rsyslog.conf");
    let text = format!(
        "global(workDirectory={dir:?} maxMessageSize=\"64k\")\n{input}\n\
         template(name=\"m\" type=\"string\" string=\"%app-name% %msgid% %structured-data% %msg%\\n\")\n\
         action(type=\"omfile\" file={out:?} template=\"m\")\n",
    );
    fs::write(&config, text).unwrap();
    let pid = dir.join("rsyslog.pid");
    let server = Server::start("rsyslogd", &["-n", "-f", config.to_str().unwrap(), "-i", pid.to_str().unwrap()])?;
    if !input.contains("imudp") {
        until_listening(port);
    }
    Some(server)
}

/// What rsyslog wrote of our records, after checking how it understood their headers.
fn read_rsyslog(out: &Path) -> Vec<u64> {
    let text = fs::read_to_string(out).unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        let (header, record) = line.split_once("] ")?;
        assert!(
            header.starts_with("distwatch cleartext-distribution [distwatch@32473 event_type=\"alert\""),
            "{header}"
        );
        assert!(header.contains("subject=\"web@host-a -> db@host-b\""), "{header}");
        Some(record.trim_start().to_owned())
    });
    lines.flat_map(|record| numbers_in(&record)).collect()
}

#[test]
fn rsyslog_has_every_record_over_tcp_also_when_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (port, out) = (free_port(), dir.path().join("out"));
    let input = format!("module(load=\"imtcp\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")");
    let Some(server) = rsyslog(dir.path(), port, &input, &out) else { return };
    let toml = format!(
        "[[sink]]\ntype = \"syslog\"\naddress = \"127.0.0.1:{port}\"\ntransport = \"tcp\"\ntimeout = \"1s\"\n{QUICK}"
    );
    let running = Running::start(dir.path(), &toml);
    running.offer(0..RECORDS);
    wait_for("rsyslog to have some", || (read_rsyslog(&out).len() > 10).then_some(()));
    server.kill();
    running.offer(RECORDS..2 * RECORDS);
    wait_for("the failure", || running.status("syslog").failing_since);
    let _server = rsyslog(dir.path(), port, &input, &out).unwrap();
    running.offer(2 * RECORDS..3 * RECORDS);
    let has_all = || {
        let received = read_rsyslog(&out);
        (0..3 * RECORDS).all(|number| received.contains(&number)).then_some(received)
    };
    let received = wait_for("rsyslog to have all", has_all);
    settle("syslog (rsyslog, TCP)", "killed under load", 3 * RECORDS, &received);
    assert!(running.flush(Duration::from_secs(5)).is_empty(), "rsyslog has taken leave, so nothing is in doubt");
}

#[test]
fn rsyslog_has_every_record_over_udp() {
    let dir = tempfile::tempdir().unwrap();
    let (port, out) = (free_port(), dir.path().join("out"));
    let input = format!(
        "module(load=\"imudp\")\ninput(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\" rcvbufSize=\"8m\")"
    );
    let toml = format!(
        "[[sink]]\ntype = \"syslog\"\naddress = \"127.0.0.1:{port}\"\ntransport = \"udp\"\ntimeout = \"1s\"\n{QUICK}"
    );
    let running = Running::start(dir.path(), &toml);
    // Nobody listens yet, which the host says.
    running.offer(0..50);
    wait_for("the failure", || running.status("syslog").failing_since);
    let Some(_server) = rsyslog(dir.path(), port, &input, &out) else { return };
    running.offer(50..RECORDS);
    let has_all = || {
        let received = read_rsyslog(&out);
        (0..RECORDS).all(|number| received.contains(&number)).then_some(received)
    };
    let received = wait_for("rsyslog to have all", has_all);
    settle("syslog (rsyslog, UDP)", "nobody listened at first", RECORDS, &received);
}

#[test]
fn rsyslog_has_every_record_over_tls_and_nobody_else_gets_any() {
    let dir = tempfile::tempdir().unwrap();
    let (port, out) = (free_port(), dir.path().join("out"));
    if !Path::new("/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_ossl.so").exists() {
        eprintln!("*** NOT CHECKED: rsyslog's TLS is not installed (`cargo xtask setup` installs it)");
        return;
    }
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(path("cert.pem"), own.cert.pem()).unwrap();
    fs::write(path("key.pem"), own.signing_key.serialize_pem()).unwrap();
    let input = format!(
        "global(defaultNetstreamDriverCAFile={0:?} defaultNetstreamDriverCertFile={0:?} defaultNetstreamDriverKeyFile={1:?})\n\
         module(load=\"imtcp\" streamDriver.name=\"ossl\" streamDriver.mode=\"1\" streamDriver.authMode=\"anon\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")",
        path("cert.pem"),
        path("key.pem"),
    );
    let Some(_server) = rsyslog(dir.path(), port, &input, &out) else { return };
    let toml = |name: &str, host: &str, ca: &str| {
        format!(
            "[[sink]]\ntype = \"syslog\"\nname = \"{name}\"\naddress = \"{host}:{port}\"\ntransport = \"tls\"\n{ca}{QUICK}"
        )
    };
    let ca = format!("ca_file = {:?}\n", path("cert.pem"));
    // The name in the certificate is another one; nothing may be sent there.
    let text = toml("right", "localhost", &ca) + &toml("wrong", "127.0.0.1", &ca);
    let running = Running::start(dir.path(), &text);
    running.offer(0..RECORDS);
    wait_for("rsyslog to have all", || (read_rsyslog(&out).len() as u64 >= RECORDS).then_some(()));
    let wrong = wait_for("the refusal", || Some(running.status("wrong")).filter(|it| it.failing_since.is_some()));
    assert!(wrong.last_error.unwrap().contains("certificate"));
    assert_eq!(wrong.queued, RECORDS);
    settle("syslog (rsyslog, TLS)", "none", RECORDS, &read_rsyslog(&out));
}

#[test]
fn the_journal_has_every_record_with_its_fields() {
    const JOURNALD: &str = "/lib/systemd/systemd-journald";
    let dir = tempfile::tempdir().unwrap();
    let namespace = format!("distwatch-test-{}", std::process::id());
    let folder = format!("/run/systemd/journal.{namespace}");
    if fs::create_dir_all(&folder).is_err() {
        eprintln!("*** NOT CHECKED: a journal of its own cannot be started here (it needs root)");
        return;
    }
    let Some(server) = Server::start(JOURNALD, &[&namespace]) else { return };
    let socket = format!("{folder}/socket");
    wait_for("the journal", || Path::new(&socket).exists().then_some(()));
    let running = Running::start(dir.path(), &format!("[[sink]]\ntype = \"journald\"\nsocket = {socket:?}\n"));
    running.offer(0..RECORDS);
    // Longer than a datagram may be, so that it goes as a file.
    let mut long = alert(RECORDS);
    long.reason = "x".repeat(900_000);
    running.sinks.offer(&outgoing(&long));
    let status = running.until_sent("journald");
    assert_eq!((status.count(Fate::Sent), losses(&status)), (RECORDS + 1, 0));
    let flag = format!("--namespace={namespace}");
    let read = || {
        let out = Command::new("journalctl")
            .args([&flag, "-a", "-o", "json", "DISTWATCH_EVENT_TYPE=alert"])
            .output()
            .unwrap();
        let lines = String::from_utf8_lossy(&out.stdout).into_owned();
        let entries: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (entries.len() as u64 > RECORDS).then_some(entries)
    };
    let entries = wait_for("the journal to have all", read);
    drop(server);
    let _ = fs::remove_dir_all(&folder);
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    for kept in ["/var/log/journal", "/run/log/journal"] {
        let _ = fs::remove_dir_all(format!("{kept}/{}.{namespace}", id.trim()));
    }
    let first = &entries[0];
    assert_eq!((&first["PRIORITY"], &first["DISTWATCH_RULE_ID"]), (&json!("3"), &json!("cleartext-distribution")));
    assert_eq!(first["SYSLOG_IDENTIFIER"], "distwatch");
    assert_eq!(first["MESSAGE_ID"].as_str().unwrap().len(), 32);
    assert!(first["MESSAGE"].as_str().unwrap().contains("runs in clear"));
    assert_eq!(entries.last().unwrap()["MESSAGE"].as_str().map(str::len), Some(900_000));
    let received: Vec<u64> =
        entries.iter().flat_map(|entry| numbers_in(entry["DISTWATCH_RECORD"].as_str().unwrap())).collect();
    settle("journald (systemd-journald)", "none", RECORDS + 1, &received);
}

#[test]
fn an_otlp_collector_prints_every_record_over_http() {
    collector_prints_every_record("http");
}

#[test]
fn an_otlp_collector_prints_every_record_over_grpc() {
    collector_prints_every_record("grpc");
}

fn collector_prints_every_record(protocol: &str) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/rotel/rotel-agent");
    if !program.exists() {
        eprintln!("*** NOT CHECKED: there is no OTLP collector (`cargo xtask setup` installs rotel)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (http, grpc) = (free_port(), free_port());
    let log = fs::File::create(dir.path().join("rotel.log")).unwrap();
    let child = Command::new(program)
        .args(["start", "--exporter", "blackhole", "--debug-log", "logs", "--debug-log-verbosity", "detailed"])
        .args([
            "--otlp-http-endpoint",
            &format!("127.0.0.1:{http}"),
            "--otlp-grpc-endpoint",
            &format!("127.0.0.1:{grpc}"),
        ])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let _server = Server(child);
    let port = if protocol == "grpc" { grpc } else { http };
    until_listening(port);
    let toml =
        format!("[[sink]]\ntype = \"otlp\"\nprotocol = \"{protocol}\"\nurl = \"http://127.0.0.1:{port}\"\n{QUICK}");
    let running = Running::start(dir.path(), &toml);
    running.offer(0..RECORDS);
    let status = running.until_sent("otlp");
    assert_eq!((status.count(Fate::Sent), losses(&status)), (RECORDS, 0));
    let read = || {
        let text = fs::read_to_string(dir.path().join("rotel.log")).unwrap();
        let received = counts(text.as_bytes());
        (received.len() as u64 >= RECORDS).then_some((text, received))
    };
    let (text, received) = wait_for("the collector to have all", read);
    for expected in ["service.name", "distwatch", "rule_id", "cleartext-distribution", "ERROR"] {
        assert!(text.contains(expected), "{expected}");
    }
    settle(&format!("otlp (rotel, {protocol})"), "none", RECORDS, &received);
}

#[test]
fn whoever_is_at_the_other_end_of_a_pipe_may_be_slow() {
    // A reader of standard output that takes its time loses nothing either; the process is this one, started anew.
    let dir = tempfile::tempdir().unwrap();
    let mut offering = Offering::start(dir.path(), "[[sink]]\ntype = \"stdout\"\n");
    offering.offer(0..RECORDS);
    let received = offering.records(RECORDS);
    settle("stdout", "a pipe", RECORDS, &received);
}
