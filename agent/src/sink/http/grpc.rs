//! Calls of gRPC: one message there and one back, over HTTP/2, with what became of it in the trailers.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;

use super::{ANSWER, Answer, Http, Url, chain, is_worth_repeating};

/// Before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What the other side said of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Its status: 0 is success.
    pub(crate) status: u32,
    /// In words.
    pub(crate) words: String,
    /// A `google.rpc.Status` with more, or nothing.
    pub(crate) details: Vec<u8>,
    /// The message, or nothing.
    pub(crate) message: Vec<u8>,
}

/// Calls a method with a message.
///
/// # Errors
/// It came to no status; the answer says whether to try again.
pub(crate) async fn call(http: &Http, url: &Url, message: &[u8], timeout: Duration) -> Result<Reply, Answer> {
    let again = |reason: String| Answer::Again { reason, after: None };
    let length =
        u32::try_from(message.len()).map_err(|_| Answer::Refused("it is too long for a message".to_owned()))?;
    let mut body = Vec::with_capacity(PREFIX + message.len());
    body.push(0);
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(message);
    let request = http
        .client
        .post(url.clone())
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", format!("{}m", timeout.as_millis().min(99_999_999)))
        .body(body);
    let response = request.send().await.map_err(|error| again(chain(&error.without_url())))?;
    let (head, mut body) = http::Response::from(response).into_parts();
    // Without a body, the status stands in the head.
    if let Some(reply) = reply(&head.headers, Vec::new()) {
        return Ok(reply);
    }
    if head.status != StatusCode::OK {
        let reason = format!("{}, which is no answer of gRPC", head.status);
        return Err(if is_worth_repeating(head.status) { again(reason) } else { Answer::Refused(reason) });
    }
    let mut received = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| again(chain(&error.without_url())))?;
        match frame.into_data() {
            Ok(data) if received.len() < ANSWER => received.extend_from_slice(&data),
            Ok(_) => {}
            Err(frame) => {
                if let Some(reply) = frame.trailers_ref().and_then(|trailers| reply(trailers, message_of(&received))) {
                    return Ok(reply);
                }
            }
        }
    }
    Err(again("it ended without a status of gRPC".to_owned()))
}

/// What stands in headers or trailers.
fn reply(headers: &HeaderMap, message: Vec<u8>) -> Option<Reply> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let status = text("grpc-status")?.trim().parse().ok()?;
    let words = percent_decoded(text("grpc-message").unwrap_or_default());
    let details = text("grpc-status-details-bin").and_then(|coded| lenient().decode(coded.trim()).ok());
    Some(Reply { status, words, details: details.unwrap_or_default(), message })
}

/// The first message of a body; nothing where it is compressed, which nobody asked for, or cut off.
fn message_of(body: &[u8]) -> Vec<u8> {
    let Some((&[0, a, b, c, d], rest)) = body.split_first_chunk::<PREFIX>() else { return Vec::new() };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    rest.get(..length).map(<[u8]>::to_vec).unwrap_or_default()
}

/// Base64 with or without padding: both are allowed there.
fn lenient() -> GeneralPurpose {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&base64::alphabet::STANDARD, config)
}

/// `%C3%BC` is `ü`.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%').and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(coded) => {
                bytes.push(coded);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_with_its_words_and_details() {
        let mut headers = HeaderMap::new();
        assert_eq!(reply(&headers, Vec::new()), None);
        headers.insert("grpc-status", "14".parse().unwrap());
        headers.insert("grpc-message", "not now%3A %C3%BC 100%".parse().unwrap());
        headers.insert("grpc-status-details-bin", "CA4".parse().unwrap());
        let words = "not now: ü 100%".to_owned();
        let expected = Reply { status: 14, words, details: vec![8, 14], message: Vec::new() };
        assert_eq!(reply(&headers, Vec::new()), Some(expected));
        headers.insert("grpc-status-details-bin", "CA4=".parse().unwrap());
        assert_eq!(reply(&headers, Vec::new()).unwrap().details, [8, 14]);
        headers.insert("grpc-status", "fine".parse().unwrap());
        assert_eq!(reply(&headers, Vec::new()), None);
    }

    #[test]
    fn a_message_is_whole_or_none() {
        assert_eq!(message_of(b"\0\0\0\0\x02ab"), b"ab");
        for wrong in [&b"\x01\0\0\0\x02ab"[..], b"\0\0\0\0\x03ab", b"\0\0", b""] {
            assert_eq!(message_of(wrong), b"");
        }
    }
}
