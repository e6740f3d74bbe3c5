//! Text from the wire in a form that is safe to print: no control characters, nothing that turns a line around or hides.

use std::borrow::Cow;
use std::fmt::Write;

/// Characters that change the order of what is shown, break lines, take no visible room, or that no font has
/// (Unicode: `Bidi_Control`, `Default_Ignorable_Code_Point`, line and paragraph separators, private use). In order.
const UNSEEN: &[(char, char)] = &[
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{e000}', '\u{f8ff}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{10ffff}'),
];

/// Whether the character prints as itself and leaves its neighbours alone.
#[must_use]
pub fn is_plain(character: char) -> bool {
    if character.is_ascii() {
        return !character.is_ascii_control();
    }
    !character.is_control() && !UNSEEN.iter().any(|&(first, last)| (first..=last).contains(&character))
}

/// The bytes as text of at most `limit` bytes.
///
/// What is not UTF-8 becomes `\xNN`, and what is not [plain](is_plain) `\u{N}`, so that a name cannot forge a line of a
/// report or hide part of itself. Longer text ends in `…`.
#[must_use]
pub fn printable(bytes: &[u8], limit: usize) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if text.len() + character.len_utf8() > limit {
                text.push('…');
                return text;
            }
            push(&mut text, character);
        }
        for byte in chunk.invalid() {
            if text.len() >= limit {
                text.push('…');
                return text;
            }
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The text with everything that is not [plain](is_plain) written as [`printable`] writes it; other alphabets stay as they
/// are. A backslash stays: this is for eyes, not for reading back, and what was escaped once is not escaped again.
#[must_use]
pub fn safe(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    text.chars().for_each(|character| push(&mut safe, character));
    Cow::Owned(safe)
}

fn push(text: &mut String, character: char) {
    if is_plain(character) {
        text.push(character);
    } else {
        // Writing to a String cannot fail.
        let _ = write!(text, "\\u{{{:x}}}", u32::from(character));
    }
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

    #[test]
    fn ordinary_names_of_any_alphabet_are_left_alone() {
        for name in ["web@host-a", "böse@rechner", "узел@хост", "ノード@ホスト", "a\\b"] {
            assert!(matches!(safe(name), Cow::Borrowed(same) if same == name));
        }
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        assert_eq!(safe("a\u{1b}[2Jb"), r"a\u{1b}[2Jb");
        assert_eq!(safe("a\r\nb\tc"), r"a\u{d}\u{a}b\u{9}c");
        assert_eq!(safe("\u{202e}txt.exe"), r"\u{202e}txt.exe");
        assert_eq!(safe("\u{9b}31m\u{200b}\u{2028}\u{e0041}"), r"\u{9b}31m\u{200b}\u{2028}\u{e0041}");
    }

    #[test]
    fn what_was_made_safe_stays_as_it_is() {
        let once = printable(b"\x1b\xff\n", 100);
        assert_eq!(safe(&once), once);
    }
}
