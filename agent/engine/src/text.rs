//! Text from the wire in a form that is safe to print: no control characters, nothing that turns a line around.

use std::fmt::Write;

/// The bytes as text of at most `limit` bytes.
///
/// What is not UTF-8 becomes `\xNN`; control characters, line separators and the marks that reorder text become
/// `\u{N}`, so that a name cannot forge a line of a report or hide part of itself. Longer text ends in `…`.
#[must_use]
pub fn printable(bytes: &[u8], limit: usize) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if text.len() + character.len_utf8() > limit {
                text.push('…');
                return text;
            }
            if is_plain(character) {
                text.push(character);
            } else {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\u{{{:x}}}", u32::from(character));
            }
        }
        for byte in chunk.invalid() {
            if text.len() >= limit {
                text.push('…');
                return text;
            }
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Whether the character prints as itself and leaves its neighbours alone.
#[must_use]
pub fn is_plain(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_line_or_turn_one_around() {
        assert_eq!(printable(b"web", 10), "web");
        assert_eq!(printable("zoë".as_bytes(), 10), "zoë");
        assert_eq!(printable(b"x\nname evil", 100), "x\\u{a}name evil");
        assert_eq!(printable("a\u{202e}b".as_bytes(), 100), "a\\u{202e}b");
        assert_eq!(printable(b"\xff\x1b[2J", 100), "\\xff\\u{1b}[2J");
    }

    #[test]
    fn long_text_is_cut_with_a_mark() {
        assert_eq!(printable(b"abcdef", 3), "abc…");
        assert!(printable(&[0xff; 1000], 10).len() < 20);
    }
}
