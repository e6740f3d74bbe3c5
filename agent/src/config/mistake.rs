//! Mistakes in a configuration file: where each one is, what is wrong, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Mistakes that are kept of one file. More tell nobody anything; they are counted.
const KEPT: usize = 100;

/// Characters of the file's own text that a message repeats.
const QUOTED: usize = 60;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line and column, both from 1, the column in characters; `None` where the file as a whole is meant.
    pub position: Option<(usize, usize)>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// All mistakes of one file, in the order in which they stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file.
    pub file: PathBuf,
    /// Its mistakes, never none.
    pub mistakes: Vec<Mistake>,
    /// How many more there are, of which nothing was kept.
    pub further: usize,
}

impl ConfigErrors {
    /// A file that could not be taken as a whole.
    #[must_use]
    pub fn whole(file: &Path, what: String, advice: Option<String>) -> Self {
        Self { file: file.to_path_buf(), mistakes: vec![Mistake { position: None, what, advice }], further: 0 }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.mistakes.len().saturating_add(self.further) {
            1 => write!(f, "{file} has a mistake")?,
            count => write!(f, "{file} has {count} mistakes")?,
        }
        for Mistake { position, what, advice } in &self.mistakes {
            match position {
                Some((line, column)) => write!(f, "\n\n{file}:{line}:{column}: {what}")?,
                None => write!(f, "\n\n{file}: {what}")?,
            }
            for line in advice.iter().flat_map(|advice| advice.lines()) {
                write!(f, "\n    {line}")?;
            }
        }
        if self.further > 0 {
            write!(f, "\n\n{file}: and {} more", self.further)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects mistakes by their place in the text.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    kept: Vec<(usize, String, Option<String>)>,
    further: usize,
}

impl Mistakes {
    /// Takes one. `span` is in octets of the text.
    pub(super) fn push(&mut self, span: Range<usize>, what: String, advice: Option<String>) {
        if self.kept.len() < KEPT {
            self.kept.push((span.start, what, advice));
        } else {
            self.further = self.further.saturating_add(1);
        }
    }

    /// Whether further ones are only counted, so that their words need not be found.
    pub(super) const fn is_full(&self) -> bool {
        self.kept.len() >= KEPT
    }

    /// `None` where there was none.
    pub(super) fn into_errors(mut self, file: &Path, text: &str) -> Option<ConfigErrors> {
        if self.kept.is_empty() {
            return None;
        }
        self.kept.sort_by_key(|(offset, ..)| *offset);
        let mistakes = self
            .kept
            .into_iter()
            .map(|(offset, what, advice)| Mistake { position: Some(position(text.as_bytes(), offset)), what, advice })
            .collect();
        Some(ConfigErrors { file: file.to_path_buf(), mistakes, further: self.further })
    }
}

/// Line and column of an octet, both from 1. The text need not be UTF-8 after it.
pub(super) fn position(text: &[u8], offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.iter().rposition(|&octet| octet == b'\n').map_or(0, |at| at + 1);
    let line = 1 + before.iter().filter(|&&octet| octet == b'\n').count();
    (line, 1 + String::from_utf8_lossy(&before[line_start..]).chars().count())
}

/// The file's own words as a message repeats them: in backticks, short, and harmless to a terminal.
pub(super) fn quoted(text: &str) -> String {
    let mut short = String::new();
    for character in text.chars().take(QUOTED) {
        match character {
            '"' | '\'' | '\\' => short.push(character),
            _ => short.extend(character.escape_debug()),
        }
    }
    if text.chars().nth(QUOTED).is_some() { format!("`{short}…`") } else { format!("`{short}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_lines_and_characters_from_one() {
        let text = "a = 1\nü = \"é\" # x\n";
        assert_eq!(position(text.as_bytes(), 0), (1, 1));
        assert_eq!(position(text.as_bytes(), text.find('#').expect("it is there")), (2, 9));
        assert_eq!(position(text.as_bytes(), 1000), (3, 1));
    }

    #[test]
    fn what_is_repeated_of_the_file_is_short_and_cannot_move_the_cursor() {
        assert_eq!(quoted("a\u{1b}[2Jb\""), "`a\\u{1b}[2Jb\"`");
        assert_eq!(quoted(&"x".repeat(200)).chars().count(), QUOTED + 3);
    }

    #[test]
    fn mistakes_stand_in_the_order_of_the_file_and_the_surplus_is_counted() {
        let mut mistakes = Mistakes::default();
        for offset in (0..KEPT + 5).rev() {
            mistakes.push(offset..offset, format!("at {offset}"), None);
        }
        let errors = mistakes.into_errors(Path::new("p.toml"), &"x".repeat(KEPT * 2)).expect("there are some");
        assert_eq!(errors.mistakes[0].position, Some((1, 6)));
        assert_eq!(errors.further, 5);
        let text = errors.to_string();
        assert!(text.starts_with("p.toml has 105 mistakes\n\np.toml:1:6: at 5\n"), "{text}");
        assert!(text.ends_with("p.toml: and 5 more"), "{text}");
    }
}
