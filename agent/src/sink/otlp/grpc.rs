//! What the status of a call means for the records that went with it (OTLP, "OTLP/gRPC Response").

use std::time::Duration;

use super::super::deliver::Outcome;
use super::super::http::Answer;
use super::super::http::grpc::Reply;
use super::protobuf::{Value, fields};
use super::rejected;

/// The method that takes logs.
pub(super) const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// The details by which a server says when it can be asked again.
const RETRY_INFO: &str = "google.rpc.RetryInfo";

/// What became of a batch.
pub(super) fn outcome(reply: Result<Reply, Answer>, records: usize) -> Outcome {
    let reply = match reply {
        Ok(reply) => reply,
        Err(answer) => return answer.outcome(records),
    };
    let Reply { status, words, details, message } = reply;
    if status == 0 {
        return rejected(&message, records);
    }
    let after = retry_delay(&details);
    let name = name(status);
    let reason = format!("gRPC status {status} ({name}): {words}");
    let again = match status {
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        1 | 4 | 10 | 11 | 14 | 15 => true,
        // RESOURCE_EXHAUSTED: only where the server says that this will pass. Else the batch is too large for it, say.
        8 => after.is_some(),
        // PERMISSION_DENIED, UNIMPLEMENTED, UNAUTHENTICATED: as over HTTP, the way is wrong and not the records, and somebody
        // will mend it.
        7 | 12 | 16 => true,
        _ => false,
    };
    let answer = if again { Answer::Again { reason, after } } else { Answer::Refused(reason) };
    answer.outcome(records)
}

const fn name(status: u32) -> &'static str {
    match status {
        1 => "CANCELLED",
        2 => "UNKNOWN",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => "no known one",
    }
}

/// How long a `google.rpc.Status` with a `RetryInfo` asks to wait.
fn retry_delay(details: &[u8]) -> Option<Duration> {
    let mut delay = None;
    fields(details, &mut |field, value| {
        // `repeated google.protobuf.Any details = 3`.
        if let (3, Value::Bytes(any)) = (field, value) {
            delay = delay.or_else(|| delay_of(any));
        }
    })?;
    delay
}

/// Of an `Any`, where it is a `RetryInfo`.
fn delay_of(any: &[u8]) -> Option<Duration> {
    let (mut is_retry_info, mut info) = (false, None);
    fields(any, &mut |field, value| match (field, value) {
        (1, Value::Bytes(url)) => is_retry_info = url.ends_with(RETRY_INFO.as_bytes()),
        (2, Value::Bytes(bytes)) => info = Some(bytes),
        _ => {}
    })?;
    let info = info.filter(|_| is_retry_info)?;
    // `google.protobuf.Duration retry_delay = 1`, of seconds and nanoseconds.
    let mut wait = Some(Duration::ZERO);
    fields(info, &mut |field, value| {
        if let (1, Value::Bytes(duration)) = (field, value) {
            let (mut seconds, mut nanos) = (0, 0);
            let whole = fields(duration, &mut |field, value| match (field, value) {
                (1, Value::Number(number)) => seconds = number,
                (2, Value::Number(number)) => nanos = number,
                _ => {}
            });
            let nanos = u32::try_from(nanos).unwrap_or(0).min(999_999_999);
            wait = whole.map(|()| Duration::new(seconds.min(u64::from(u32::MAX)), nanos));
        }
    })?;
    wait
}

#[cfg(test)]
mod tests {
    use super::super::super::deliver::Refused;
    use super::super::protobuf::Message;
    use super::*;

    fn reply(status: u32, details: Vec<u8>) -> Result<Reply, Answer> {
        Ok(Reply { status, words: "so".to_owned(), details, message: Vec::new() })
    }

    fn retry_info(seconds: u64) -> Vec<u8> {
        let duration = Message::default().number(1, seconds).number(2, 500_000_000);
        let any = Message::default()
            .bytes(1, b"type.googleapis.com/google.rpc.RetryInfo")
            .message(2, Message::default().message(1, duration));
        let other = Message::default().bytes(1, b"type.googleapis.com/google.rpc.Help").bytes(2, b"");
        Message::default().number(1, 8).message(3, other).message(3, any).into_bytes()
    }

    #[test]
    fn what_may_pass_is_sent_again_and_what_will_not_is_refused() {
        assert_eq!(outcome(reply(0, Vec::new()), 7), Outcome::DONE);
        for status in [1, 4, 7, 10, 11, 12, 14, 15, 16] {
            assert!(matches!(outcome(reply(status, Vec::new()), 7), Outcome::Retry { done: 0, .. }), "{status}");
        }
        for status in [2, 3, 5, 6, 8, 9, 13, 99] {
            let refused = Outcome::refused(7, format!("gRPC status {status} ({}): so", name(status)));
            assert_eq!(outcome(reply(status, Vec::new()), 7), refused, "{status}");
        }
    }

    #[test]
    fn a_server_that_is_exhausted_for_a_while_says_for_how_long() {
        let Outcome::Retry { after, reason, .. } = outcome(reply(8, retry_info(3)), 7) else { panic!("refused") };
        assert_eq!(after, Some(Duration::from_millis(3500)));
        assert_eq!(reason, "gRPC status 8 (RESOURCE_EXHAUSTED): so");
        let Outcome::Retry { after, .. } = outcome(reply(14, retry_info(0)), 7) else { panic!("refused") };
        assert_eq!(after, Some(Duration::from_millis(500)));
        // Anything may stand there.
        assert_eq!(retry_delay(&retry_info(1)[..20]), None);
        assert_eq!(retry_delay(b"\xff\xff"), None);
    }

    #[test]
    fn a_partial_success_is_refused_in_part() {
        let partial = Message::default().number(1, 3).bytes(2, b"too old");
        let message = Message::default().message(1, partial).into_bytes();
        let reply = Ok(Reply { status: 0, words: String::new(), details: Vec::new(), message });
        let refused = Some(Refused { records: 3, reason: "too old".to_owned() });
        assert_eq!(outcome(reply, 7), Outcome::Done { refused });
    }
}
