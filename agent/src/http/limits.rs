//! Every limit of the server, each with its reason. What reaches one is refused or cut off, and counted.

use std::time::Duration;

/// Connections at a time. A page holds two or three, a scraper one; each may take some ten kilobytes here. One more takes the
/// place of one that waits for nothing.
pub const CONNECTIONS: usize = 128;

/// Clients at a time that are told events as they come: fewer than connections, so that they never keep a scraper out.
pub const STREAMS: usize = 32;

/// How long a request's head, a TLS handshake, or the next request on an open connection may take to come.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// How long the making of an answer may take.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may take none of what is sent to it.
pub const READER_PATIENCE: Duration = Duration::from_secs(10);

/// Octets that a request's head may have: a token, cookies of other servers on the same host, and room.
pub const HEAD_BYTES: usize = 16 << 10;

/// Fields that a request's head may have. Browsers send some twenty.
pub const HEAD_FIELDS: usize = 64;

/// What the kernel keeps of an answer that a client has not read, at most (it takes twice the number): with
/// [`CONNECTIONS`] and the bound of each answer's own pieces it is the end of what slow clients can take.
pub const SEND_BUFFER: usize = 256 << 10;

/// How long a picture of the capture thread's knowledge is shown before another is taken.
pub const PICTURE_AGE: Duration = Duration::from_secs(1);

/// Of the capture thread's time, pictures take no more than one part in so many: one that took long is shown for longer.
pub const PICTURE_SHARE: u32 = 50;

/// How long the capture thread may take to answer; it looks for questions five times a second.
pub const CAPTURE_PATIENCE: Duration = Duration::from_secs(5);

/// Octets of a list that are written at once: between two pieces others have their turn, and no answer is ever whole in memory.
pub const PIECE: usize = 64 << 10;

/// Entries of a list where the client does not say how many.
pub const ENTRIES: usize = 1000;

/// Lists under way at a time: each holds a picture, with its findings, until its reader has all of it.
pub const LISTS: usize = 8;

/// Pictures that are kept for those who read a list part by part. Each holds findings of its own, up to some megabytes.
pub const KEPT_PICTURES: usize = 3;

/// How long such a reader may take from one part to the next.
pub const PART_PATIENCE: Duration = Duration::from_secs(60);

/// Records that are kept for clients that come back, and octets of them: the last minutes of a busy cluster.
pub const RECENT_RECORDS: usize = 4096;

/// See [`RECENT_RECORDS`].
pub const RECENT_BYTES: usize = 8 << 20;

/// Between two signs of life to a client that is told events: below the minute after which proxies close idle connections.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
