//! The few messages of OTLP logs as protocol buffers write them (`opentelemetry/proto/logs/v1/logs.proto`).
//!
//! A message is written into a buffer of its own and then put, with its length, into the one that holds it.

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

/// Wire types (protobuf encoding, "Message Structure").
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;

impl Message {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    pub(super) fn fixed64(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3 | FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn message(self, field: u64, message: Self) -> Self {
        self.bytes(field, &message.0)
    }

    /// A `KeyValue` whose value is text.
    pub(super) fn attribute(self, field: u64, key: &str, value: &str) -> Self {
        self.message(field, Self::default().bytes(1, key.as_bytes()).message(2, text(value.as_bytes())))
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// An `AnyValue` that is text.
pub(super) fn text(value: &[u8]) -> Message {
    Message::default().bytes(1, value)
}

/// What an `ExportLogsServiceResponse` says was refused, and why; `None` where all was taken.
pub(super) fn refused(response: &[u8]) -> Option<(u64, String)> {
    let mut partial = None;
    fields(response, &mut |field, value| {
        if let (1, Value::Bytes(bytes)) = (field, value) {
            partial = Some(bytes);
        }
    })?;
    let (mut rejected, mut message) = (0, String::new());
    fields(partial?, &mut |field, value| match (field, value) {
        (1, Value::Number(number)) => rejected = number,
        (2, Value::Bytes(bytes)) => message = String::from_utf8_lossy(bytes).into_owned(),
        _ => {}
    })?;
    (rejected > 0).then_some((rejected, message))
}

/// What a field holds.
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Goes through the fields of a message; `None` where it is none.
pub(super) fn fields<'a>(mut rest: &'a [u8], found: &mut dyn FnMut(u64, Value<'a>)) -> Option<()> {
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let value = match key & 7 {
            VARINT => Value::Number(varint(&mut rest)?),
            FIXED64 => {
                let (bytes, left) = rest.split_first_chunk::<8>()?;
                rest = left;
                Value::Number(u64::from_le_bytes(*bytes))
            }
            LENGTH => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (bytes, left) = rest.split_at_checked(length)?;
                rest = left;
                Value::Bytes(bytes)
            }
            5 => {
                let (bytes, left) = rest.split_first_chunk::<4>()?;
                rest = left;
                Value::Number(u64::from(u32::from_le_bytes(*bytes)))
            }
            _ => return None,
        };
        found(key >> 3, value);
    }
    Some(())
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_and_text_are_written_as_the_specification_shows() {
        // The two examples of the protobuf encoding page.
        assert_eq!(Message::default().number(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().bytes(2, b"testing").into_bytes(), *b"\x12\x07testing");
    }

    #[test]
    fn a_partial_success_says_how_many_were_refused() {
        let partial = Message::default().number(1, 3).bytes(2, b"too old");
        let response = Message::default().message(1, partial).into_bytes();
        assert_eq!(refused(&response), Some((3, "too old".to_owned())));
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(b"<html>"), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            refused(&bytes);
        }
    }
}
