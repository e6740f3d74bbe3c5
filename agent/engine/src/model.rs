//! What the product says about the world, in the very shape in which it is printed (`docs/contract.md`).
//!
//! These types are the contract: their serde form is the report, the records and the HTTP answers, and the
//! JSON Schema that ships with the program is generated from them. A field may be added; none is renamed or
//! changes its meaning without a new [`SCHEMA_VERSION`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::time::Timestamp;

/// The version of all shapes in this file.
pub const SCHEMA_VERSION: u32 = 1;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// A weakness with little reach.
    Low,
    /// A weakness that needs a second one.
    Medium,
    /// The guideline is broken in a way that can be used.
    High,
    /// Whoever can reach it owns the cluster, or already does.
    Critical,
}

impl Severity {
    /// All severities, lowest first.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The severity of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.name() == name)
    }

    /// The log level that log stores recognise for it.
    #[must_use]
    pub const fn level(self) -> &'static str {
        match self {
            Self::Info | Self::Low => "info",
            Self::Medium => "warn",
            Self::High => "error",
            Self::Critical => "critical",
        }
    }

    /// The next lower severity; `Info` stays.
    #[must_use]
    pub const fn lowered(self) -> Self {
        match self {
            Self::Info | Self::Low => Self::Info,
            Self::Medium => Self::Low,
            Self::High => Self::Medium,
            Self::Critical => Self::High,
        }
    }
}

/// How sure a statement is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// One reading among others.
    Possible,
    /// Inferred, and hardly otherwise.
    Likely,
    /// Read from the wire.
    #[default]
    Certain,
}

/// A number for each direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PerSide {
    /// What the initiator sent.
    pub from_initiator: u64,
    /// What the acceptor sent.
    pub from_acceptor: u64,
}

/// One end of a TCP connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
pub struct End {
    /// The node's name, once known.
    pub node: Option<String>,
    /// Its address.
    pub ip: IpAddr,
    /// Its TCP port.
    pub port: u16,
}

/// What a connection is carried by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Readable by anyone on the way.
    Cleartext,
    /// TLS.
    Tls,
    /// Not known (nothing was sent, or something unknown).
    #[default]
    Unknown,
}

/// Yes, no, or not to be known from what was captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It is so.
    Yes,
    /// It is not so.
    No,
    /// It cannot be told.
    #[default]
    Unknown,
}

/// A certificate that was visible in a TLS handshake (up to TLS 1.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Certificate {
    /// `server` or `client`.
    pub from: CertificateOwner,
    /// Place in the chain; 0 is the owner's own.
    pub position: u32,
    /// Distinguished name of the subject.
    pub subject: String,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// Subject alternative names.
    pub names: Vec<String>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// Subject and issuer are the same.
    pub self_signed: bool,
    /// SHA-256 of the DER form, hexadecimal.
    pub sha256: String,
}

/// Whose certificate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CertificateOwner {
    /// The TLS client's (the initiator of the connection).
    Client,
    /// The TLS server's (the acceptor).
    Server,
}

/// How a TLS handshake, and the distribution handshake inside it, ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TlsOutcome {
    /// Application data flows, and the lengths of its first records are those of a distribution handshake that passed.
    Ok,
    /// The TLS handshake passed; what runs inside was not recognised by its record lengths.
    Established,
    /// The record lengths show a distribution handshake that was cut off at the cookie check.
    BadCookie,
    /// The server ended it with an alert or a close.
    RefusedByServer,
    /// The client ended it with an alert or a close.
    RefusedByClient,
    /// It was begun and not finished.
    #[default]
    Incomplete,
    /// The capture begins after the handshake.
    Unseen,
    /// The other side does not speak TLS.
    NotTls,
}

/// What is known of the TLS layer of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tls {
    /// The negotiated version (`1.0` … `1.3`); null before the server's answer.
    pub version: Option<String>,
    /// The negotiated cipher suite, by its IANA name.
    pub cipher: Option<String>,
    /// The server name that the client asked for.
    pub sni: Option<String>,
    /// Whether both sides showed a certificate.
    pub mutual_auth: Answer,
    /// How sure that is: `certain` where the messages are in clear, `likely` where record lengths say it.
    pub mutual_auth_confidence: Confidence,
    /// Whether the server asked for a client certificate.
    pub client_certificate_requested: Answer,
    /// Certificates that could be read.
    pub certificates: Vec<Certificate>,
    /// How it ended.
    pub outcome: TlsOutcome,
    /// The alert that ended it, in words.
    pub alert: Option<String>,
    /// Whether the record lengths are those of a distribution handshake (`docs/protocol.md` §8.2).
    pub distribution_inside: Answer,
}

/// How a distribution handshake ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HandshakeOutcome {
    /// Both digests were accepted.
    Ok,
    /// Cut off at the digest check.
    BadCookie,
    /// Status `not_allowed`.
    NotAllowed,
    /// Status `nok`: the other of two simultaneous attempts won.
    Nok,
    /// Status `alive`, and the initiator gave way.
    Alive,
    /// Ended because a mandatory capability is missing.
    FlagsRefused,
    /// Begun and not finished.
    #[default]
    Incomplete,
    /// Mid-stream, or inside TLS.
    Unseen,
    /// Not the protocol.
    Foreign,
}

/// What was read of a handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Handshake {
    /// 5 or 6; null where it was not seen.
    pub version: Option<u8>,
    /// How it ended.
    pub outcome: HandshakeOutcome,
    /// The status that the acceptor sent, as text (`ok`, `ok_simultaneous`, `named`, …).
    pub status: Option<String>,
    /// Capability flags of the initiator.
    pub initiator_flags: Option<u64>,
    /// Capability flags of the acceptor.
    pub acceptor_flags: Option<u64>,
    /// Creation of the initiator; for a dynamic name the one it was given.
    pub initiator_creation: Option<u32>,
    /// Creation of the acceptor.
    pub acceptor_creation: Option<u32>,
    /// The initiator asked for a name (NAME_ME).
    pub dynamic_name: bool,
    /// The entry of the word list that the initiator's digest matches: whose default, or which line; never the word.
    pub weak_cookie: Option<String>,
    /// The challenge that the initiator sent was 0, as one attack tool does.
    pub zero_challenge: bool,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// FIN, first from the initiator.
    FinInitiator,
    /// FIN, first from the acceptor.
    FinAcceptor,
    /// RST by the initiator.
    ResetInitiator,
    /// RST by the acceptor.
    ResetAcceptor,
    /// A new SYN on the same addresses and ports.
    PortReuse,
    /// Nothing for longer than the time-out.
    Silent,
    /// Given up to stay inside a limit.
    Evicted,
}

/// One distribution connection, or the attempt at one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Link {
    /// Stable text id of the connection.
    pub flow_id: String,
    /// The TCP client.
    pub initiator: End,
    /// The TCP server.
    pub acceptor: End,
    /// What it is carried by.
    pub transport: Transport,
    /// The TLS layer, where there is one.
    pub tls: Option<Box<Tls>>,
    /// The distribution handshake.
    pub handshake: Handshake,
    /// Names of the interfaces that it was seen on.
    pub interfaces: Vec<String>,
    /// The capture begins after its start.
    pub mid_stream: bool,
    /// It is the one that an earlier run of the program saw on just these addresses and ports; names, flags and creations are
    /// those that were read then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// First packet.
    pub opened: Timestamp,
    /// Last packet of a closed one; null while it is open.
    pub closed: Option<Timestamp>,
    /// Why it ended.
    pub close_reason: Option<CloseReason>,
    /// Handshake messages and frames (fragments and ticks count as one each).
    pub messages: PerSide,
    /// TCP payload octets, each counted once.
    pub bytes: PerSide,
    /// Ticks (empty frames).
    pub ticks: PerSide,
    /// Places where octets are missing.
    pub gaps: u64,
    /// Octets known to be missing.
    pub missing_bytes: u64,
    /// When it last carried anything.
    pub last_seen: Timestamp,
    /// The packet that it begins with, as `number` or `capture:number`.
    pub first_packet: String,
    /// The builds that the atom-cache slots of either side are those of, always an inference.
    pub builds: Builds,
}

/// What the atom-cache slots say of both ends of a link (`docs/protocol.md` §3.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Builds {
    /// The initiator's.
    pub initiator: Option<Build>,
    /// The acceptor's.
    pub acceptor: Option<Build>,
}

/// A build of Erlang/OTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Build {
    /// Its version (`25.2.3`).
    pub name: String,
    /// Its release.
    pub otp: u16,
    /// How sure that is.
    pub confidence: Confidence,
}

/// The span of releases that a node's behaviour allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Otp {
    /// Oldest release.
    pub min: Option<u16>,
    /// Newest release.
    pub max: Option<u16>,
    /// The capability flags that say so.
    pub flags: Option<u64>,
    /// The build that the atom-cache slots are those of, always an inference (`docs/protocol.md` §3.3).
    pub build: Option<String>,
    /// How sure `build` is.
    pub build_confidence: Option<Confidence>,
    /// An implementation other than the emulator (`erl_interface`, `Jinterface`, `unknown`), by its flags.
    pub implementation: Option<String>,
}

/// A node that took part in the traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Node {
    /// Full name.
    pub name: String,
    /// Addresses that it used.
    pub addresses: Vec<IpAddr>,
    /// Ports that it accepts distribution on.
    pub dist_ports: Vec<u16>,
    /// Creations (incarnations) in the order seen.
    pub creations: Vec<u32>,
    /// Not published.
    pub hidden: bool,
    /// Its name was made for the connection: given by the peer (NAME_ME), or by `erl_call` from its process id.
    pub dynamic_name: bool,
    /// Releases.
    pub otp: Otp,
    /// First time.
    pub first_seen: Timestamp,
    /// Last time.
    pub last_seen: Timestamp,
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub struct Endpoint {
    /// Address.
    pub ip: IpAddr,
    /// TCP port.
    pub port: u16,
}

/// Kinds of EPMD request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EpmdRequest {
    /// Register a node.
    Alive2,
    /// Ask a node's port.
    #[serde(rename = "port_please2")]
    PortPlease2,
    /// List all nodes.
    Names,
    /// List all nodes, with file descriptors and past names.
    Dump,
    /// End the daemon.
    Kill,
    /// Strike a node off the list.
    Stop,
}

/// What an ALIVE2 request, or the answer to PORT_PLEASE2, says of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EpmdNode {
    /// Distribution port.
    pub port: u16,
    /// 77 node, 104 C node, 110 Jinterface, 72 hidden (documented, sent by none).
    pub node_type: u8,
    /// 0: TCP.
    pub protocol: u8,
    /// Highest handshake version.
    pub highest_version: u16,
    /// Lowest handshake version.
    pub lowest_version: u16,
}

/// A line of a NAMES or DUMP answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EpmdName {
    /// The part before the `@`.
    pub name: String,
    /// Distribution port.
    pub port: u16,
}

/// One EPMD request with its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EpmdExchange {
    /// When the request was complete.
    pub timestamp: Timestamp,
    /// Who asked.
    pub client: Endpoint,
    /// Whom.
    pub server: Endpoint,
    /// What.
    pub request: EpmdRequest,
    /// The node name in the request; empty where the request has none.
    pub name: String,
    /// The answer in words.
    pub result: String,
    /// The daemon would take the client for local (loopback, or the same address at both ends).
    pub local: bool,
    /// The connection.
    pub flow_id: String,
    /// What was registered or answered.
    pub node: Option<EpmdNode>,
    /// The creation that a registration was given.
    pub creation: Option<u32>,
    /// The nodes of a NAMES or DUMP answer.
    pub names: Vec<EpmdName>,
    /// Whether the daemon did what was asked.
    pub accepted: bool,
}

/// Kinds of remote action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the contract lists the words; each is the operation of that name")]
pub enum ActivityKind {
    RpcCall,
    RpcCast,
    RpcBlockCall,
    ErpcCall,
    ErpcCast,
    Spawn,
    SpawnLink,
    SpawnMonitor,
    GenCall,
    GenCast,
    SendNamed,
    SendPid,
    Link,
    Monitor,
    Exit,
    Shell,
    IoRequest,
    /// An answer to any of the above, or housekeeping (demonitor, unlink, group leader): only in the NDJSON of
    /// every message, never aggregated.
    Reply,
}

/// One remote action, or all alike of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Activity {
    /// What was done.
    pub kind: ActivityKind,
    /// The node whose end of the connection sent it.
    pub from_node: Option<String>,
    /// The node at the other end.
    pub to_node: Option<String>,
    /// `module:function/arity`, or `fun Module:-name-/arity-`.
    pub mfa: Option<String>,
    /// A registered name, or `<pid>`.
    pub target: Option<String>,
    /// How often.
    pub count: u64,
    /// First time.
    pub first_seen: Timestamp,
    /// Last time.
    pub last_seen: Timestamp,
    /// The connection.
    pub flow_id: String,
    /// Name of the control message that carried it (`REG_SEND`, `SPAWN_REQUEST`, …).
    pub operation: String,
    /// Whether the connection's initiator did it.
    pub from_initiator: bool,
    /// `certain` where the names were read, `likely` where they were inferred from atom-cache slots.
    pub confidence: Confidence,
    /// The arguments, only as far as the policy asks for them.
    pub arguments: Option<String>,
    /// The packet of the first one, as `number` or `capture:number`.
    pub first_packet: String,
}

/// State of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    /// First time.
    New,
    /// Again, or more is known.
    Update,
    /// The condition has ended.
    Resolved,
}

/// A fact behind an alert, and where it can be looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Evidence {
    /// The fact.
    pub fact: String,
    /// The packet, as `number` or `capture:number`; null where it is not a single packet's.
    pub packet: Option<String>,
    /// When.
    pub timestamp: Timestamp,
}

/// A finding in its present state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Alert {
    /// Id in the catalogue.
    pub rule_id: String,
    /// How much it matters.
    pub severity: Severity,
    /// The same as a log level.
    pub level: String,
    /// New, update or resolved.
    pub status: AlertStatus,
    /// Same condition, same value, over restarts.
    pub fingerprint: String,
    /// How often.
    pub count: u64,
    /// First time.
    pub first_seen: Timestamp,
    /// Last time.
    pub last_seen: Timestamp,
    /// When this state of it came out, which may be hours after it was last seen; the record around it has it.
    #[serde(skip)]
    pub told: Timestamp,
    /// What it is about.
    pub subject: String,
    /// One sentence for a person.
    pub reason: String,
    /// Facts.
    pub evidence: Vec<Evidence>,
    /// How sure.
    pub confidence: Confidence,
    /// What to do.
    pub remediation: String,
    /// Statements of the guideline.
    pub references: Vec<String>,
    /// The connection, where one is concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_id: Option<String>,
    /// Its initiator's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_ip: Option<IpAddr>,
    /// Its initiator's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    /// Its acceptor's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dest_ip: Option<IpAddr>,
    /// Its acceptor's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dest_port: Option<u16>,
    /// The interface that it was seen on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_iface: Option<String>,
    /// The process of the end that it is about; of the other end, where only that is on this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Which end of the connection that process has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_end: Option<ProcessEnd>,
}

/// What a process has to do with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProcessEnd {
    /// It waits for connections.
    Listener,
    /// It is the connection's initiator.
    Initiator,
    /// It is the connection's acceptor.
    Acceptor,
}

/// A process of the host, and the socket that it stands behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SocketProcess {
    /// What it has to do with the socket.
    pub end: ProcessEnd,
    /// The socket's own address.
    pub ip: IpAddr,
    /// The socket's own port.
    pub port: u16,
    /// The process.
    #[serde(flatten)]
    pub process: Process,
}

/// A process of the host, behind a listener or a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Process {
    /// Its id, as the host counts.
    pub pid: u32,
    /// Its executable.
    pub exe: Option<String>,
    /// Whose it is: the name, or the number where it has none or it is a container's own.
    pub user: Option<String>,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// Its container: the id, or the name where there is no id.
    pub container: Option<String>,
    /// The name of the Erlang node that it is, as far as its command line tells.
    pub node: Option<String>,
}

/// Something that no rule covers but an analyst wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Weird {
    /// A stable kebab-case word: `gap`, `limit-reached`, `undecodable`, `trailing-bytes`, …
    pub name: String,
    /// The layer that it was seen in (`net`, `tcp`, `epmd`, `handshake`, `dist`, `etf`, `tls`).
    pub layer: String,
    /// One sentence.
    pub detail: String,
    /// The packet, as `number` or `capture:number`.
    pub packet: Option<String>,
}

/// A capture file that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Capture {
    /// Its path as given; `-` for standard input.
    pub path: String,
    /// `pcap`, `pcap (modified)` or `pcapng`, with `+gzip` or `+zstd` where it is compressed.
    pub format: String,
    /// Link types of the packets, by their names in libpcap's registry.
    pub link_types: Vec<String>,
    /// Names of the interfaces, as far as the file tells them.
    pub interfaces: Vec<String>,
    /// Packets.
    pub packets: u64,
    /// Captured octets.
    pub bytes: u64,
    /// Time of the earliest packet.
    pub first: Option<Timestamp>,
    /// Time of the latest packet.
    pub last: Option<Timestamp>,
    /// Packets of which the snap length cut a part off.
    pub truncated_packets: u64,
    /// Packets that were lost while the capture was taken; null where the file does not tell.
    pub dropped: Option<u64>,
    /// What is wrong with the file, and at which byte; null for a sound one.
    pub damaged: Option<String>,
}

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Stats {
    /// Packets taken in.
    pub packets: u64,
    /// Captured octets taken in.
    pub bytes: u64,
    /// TCP connections seen.
    pub flows: u64,
    /// Places where octets of a connection are missing.
    pub gaps: u64,
    /// Octets that were acknowledged or skipped but never captured.
    pub missing_bytes: u64,
    /// What could not be decoded, by layer.
    pub decode_errors: BTreeMap<String, u64>,
    /// Limits that were reached, by name, and how often.
    pub limits_reached: BTreeMap<String, u64>,
    /// Packets that were not TCP over IP, or could not be taken further, by reason.
    pub packets_not_used: BTreeMap<String, u64>,
    /// Control messages read, by name.
    pub control_messages: BTreeMap<String, u64>,
    /// From the first packet to the last.
    pub duration_seconds: f64,
}
