//! Prose for a terminal or a comment: lines no longer than asked for.

/// Breaks prose into lines of at most `width` characters, except where a single word is longer.
#[must_use]
pub(crate) fn wrap(prose: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut length) = (String::new(), 0);
    for word in prose.split_whitespace() {
        let word_length = word.chars().count();
        if length > 0 && length + 1 + word_length > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += word_length;
    }
    if length > 0 {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_are_no_wider_than_asked_for() {
        assert_eq!(wrap("one two  three\nfour", 9), ["one two", "three", "four"]);
        assert_eq!(wrap("überlängenwort a b", 5), ["überlängenwort", "a b"]);
        assert!(wrap("  ", 5).is_empty());
    }
}
