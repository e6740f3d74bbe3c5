//! The keys of each kind of sink.

use distwatch_engine::model::Severity;

use super::form::{Events, FilePath, RuleIds, SinkName};
use crate::config::form::{Bytes, Maybe, Name, Time, Whole, Word};
use crate::config::key::{Key, key};
use crate::sink::Settings;
use crate::sink::settings::{Format, Fsync};

/// What one kind of sink takes from the file.
pub(super) struct Row {
    /// The word for the kind.
    pub(super) kind: &'static str,
    /// Its own keys, besides [`COMMON`].
    pub(super) keys: &'static [&'static [Key<Settings>]],
    /// One of each of these must be given.
    pub(super) required: &'static [&'static [&'static str]],
    /// Keys that do not stand in the example, because they contradict others there.
    pub(super) not_shown: &'static [&'static str],
}

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// What every kind takes.
pub(super) const COMMON: &[Key<Settings>] = &[
    key!("type", Name, Settings.kind, "Where records go.").example("\"file\"").unset("it must be given"),
    key!(
        "name",
        SinkName,
        Settings.name,
        "What it is called in logs and metrics, and the folder of its spool. Its type where it is not given."
    )
    .example("\"records\"")
    .unset("the type"),
    key!(
        "format",
        Word<Format>,
        Settings.format,
        "The shape of a record: \"native\", \"ocsf\" (Detection Finding, alerts only) or \"ecs\"."
    ),
    key!(
        "severity",
        Word<Severity>,
        Settings.severity,
        "Alerts below it are left out: \"info\", \"low\", \"medium\", \"high\" or \"critical\"."
    ),
    key!(
        "events",
        Events,
        Settings.events,
        "Kinds of record that go there: alert, link, epmd, activity, stats, weird. `*` stands for any characters."
    )
    .example(r#"["alert", "link"]"#)
    .unset("all; only \"alert\" for alertmanager, webhook and the format \"ocsf\""),
    key!("rules", RuleIds, Settings.rules, "Rules whose alerts go there.").example(r#"["*cookie*"]"#).unset("all"),
    key!(
        "rate_limit",
        Maybe<Whole<u32, 1, 1_000_000>>,
        Settings.rate_limit,
        "Records a second, and a second's worth at once. What is above is withheld, and counted."
    )
    .example("1000")
    .unset("no limit"),
    key!("batch_records", Maybe<Whole<usize, 1, 10_000>>, Settings.batch_records, "How many records go at once.")
        .example("500")
        .unset("what suits the type"),
    key!(
        "batch_wait",
        Maybe<Time<0, { 60 * SECOND }>>,
        Settings.batch_wait,
        "How long a record may wait for others to go along with."
    )
    .example("\"200ms\"")
    .unset("what suits the type"),
    key!(
        "spool_limit",
        Bytes<MIB, { 1 << 40 }>,
        Settings.spool_limit,
        "Disk space for records that have not been taken yet. At the limit the oldest are discarded, and counted."
    ),
    key!(
        "fsync",
        Word<Fsync>,
        Settings.fsync,
        "When the spool is brought to the disk: \"never\", \"interval\" (what waits, each second) or \"always\". The end \
         of the process loses nothing in any case; this is for the end of the machine."
    ),
    key!(
        "retry_first",
        Time<10, HOUR>,
        Settings.retry_first,
        "How long to wait after a failure. Each further one waits twice as long."
    ),
    key!("retry_longest", Time<10, DAY>, Settings.retry_longest, "The longest wait after a failure."),
];

const FILE: &[Key<Settings>] = &[
    key!("path", FilePath, Settings.file.path, "The file.")
        .example("\"/var/log/distwatch/records.ndjson\"")
        .unset("it must be given"),
    key!(
        "rotate_size",
        Bytes<{ 64 << 10 }, { 1 << 40 }>,
        Settings.file.rotate_size,
        "A file that would grow larger is put away: it becomes `.1`, that one `.2`, and so on."
    ),
    key!(
        "rotate_every",
        Maybe<Time<{ 60 * SECOND }, { 366 * DAY }>>,
        Settings.file.rotate_every,
        "A file that is older is put away."
    )
    .example("\"1d\"")
    .unset("only the size matters"),
    key!("keep", Whole<u32, 0, 10_000>, Settings.file.keep, "How many files that were put away are kept."),
];

/// All kinds, in the order of the example; the first one is shown with all that every kind takes.
pub(super) const ROWS: &[Row] = &[
    Row { kind: "file", keys: &[FILE], required: &[&["path"]], not_shown: &[] },
    Row { kind: "stdout", keys: &[], required: &[], not_shown: &[] },
];
