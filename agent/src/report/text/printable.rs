//! Text that a peer chose, made harmless for a terminal.

use std::borrow::Cow;

/// The text with every character that could move the cursor, change colours, reverse the reading order or hide itself
/// written as an escape. Everything else, also other alphabets, stays as it is. A backslash stays: this is for eyes, not for
/// reading back.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hidden(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

/// Control characters (ANSI sequences begin with one), separators of lines, marks and overrides of direction, characters
/// without width, tags, and what no font has.
const fn is_hidden(character: char) -> bool {
    matches!(
        character,
        '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{e000}'..='\u{f8ff}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{10ffff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_of_any_alphabet_are_left_alone() {
        for name in ["web@host-a", "böse@rechner", "узел@хост", "ノード@ホスト", "a\\b"] {
            assert!(matches!(printable(name), Cow::Borrowed(same) if same == name));
        }
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        assert_eq!(printable("a\u{1b}[2Jb"), r"a\u{1b}[2Jb");
        assert_eq!(printable("a\r\nb\tc"), r"a\r\nb\tc");
        assert_eq!(printable("\u{202e}txt.exe"), r"\u{202e}txt.exe");
        assert_eq!(printable("\u{9b}31m\u{200b}\u{2028}\u{e0041}"), r"\u{9b}31m\u{200b}\u{2028}\u{e0041}");
    }
}
