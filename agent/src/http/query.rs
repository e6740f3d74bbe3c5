//! What stands behind the question mark: known names with values that mean something, or a problem that says what is wrong.

use super::answer::Problem;
use crate::near::nearest;

/// Characters of the client's own text that a problem repeats.
const QUOTED: usize = 60;

/// The parameters of a request, each of which is known, and there once.
#[derive(Debug)]
pub(super) struct Query<'a> {
    given: Vec<(&'a str, String)>,
}

impl<'a> Query<'a> {
    /// Reads them; `known` are those that may be there.
    ///
    /// # Errors
    /// One is not known, or is there twice.
    pub(super) fn read(text: &str, known: &[&'a str]) -> Result<Self, Problem> {
        let mut given: Vec<(&'a str, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let Some(&known) = known.iter().find(|known| **known == name) else {
                let hint = match (nearest(&name, known.iter().copied()), known) {
                    (Some(near), _) => format!("did you mean {near}?"),
                    (None, []) => "there are none here".to_owned(),
                    (None, known) => format!("there are {}", known.join(", ")),
                };
                return Err(Problem::bad_request(format!("there is no parameter {}: {hint}", quoted(&name))));
            };
            if given.iter().any(|(name, _)| *name == known) {
                return Err(Problem::bad_request(format!("the parameter {known} is there twice")));
            }
            given.push((known, value.into_owned()));
        }
        Ok(Self { given })
    }

    /// The value of a parameter.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// A whole number from `least` on.
    pub(super) fn whole(&self, name: &str, least: usize) -> Result<Option<usize>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if number >= least => Ok(Some(number)),
            _ => {
                Err(Problem::bad_request(format!("{name} is {}: write a whole number, {least} or more", quoted(text))))
            }
        }
    }

    /// One of a few words, and what it stands for.
    pub(super) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Problem> {
        self.text(name).map(|text| one_of(name, text, words)).transpose()
    }

    /// Some of a few words, with commas between them.
    pub(super) fn words<T: Copy + PartialEq>(
        &self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<Vec<T>>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let mut wanted = Vec::new();
        for word in text.split(',') {
            let word = one_of(name, word, words)?;
            // Once each: every record is held against all of them.
            if !wanted.contains(&word) {
                wanted.push(word);
            }
        }
        Ok(Some(wanted))
    }
}

fn one_of<T: Copy>(name: &str, text: &str, words: &[(&str, T)]) -> Result<T, Problem> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*meaning);
    }
    let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    Err(Problem::bad_request(format!("{name} is {}: write one of {}", quoted(text), all.join(", "))))
}

/// The beginning of a client's text. JSON makes it harmless; a person may look at it in a terminal.
fn quoted(text: &str) -> String {
    let start: String = text.chars().take(QUOTED).collect();
    format!("\"{}\"", start.escape_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        let query = Query::read(text, &["state", "limit"]);
        let result = query.and_then(|query| {
            query.whole("limit", 1)?;
            query.word("state", &[("open", ()), ("closed", ())])
        });
        result.unwrap_err().detail
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        assert_eq!(problem("stat=open"), "there is no parameter \"stat\": did you mean state?");
        assert_eq!(problem("zzzzzz"), "there is no parameter \"zzzzzz\": there are state, limit");
        assert_eq!(problem("limit=1&limit=2"), "the parameter limit is there twice");
        for wrong in ["0", "-1", "1.5", "", "99999999999999999999999"] {
            assert!(problem(&format!("limit={wrong}")).ends_with("write a whole number, 1 or more"), "{wrong}");
        }
        assert_eq!(problem("state=%1b%5b2J"), "state is \"\\u{1b}[2J\": write one of open, closed");
        assert!(problem(&format!("{}=1", "x".repeat(9999))).len() < 200);
    }

    #[test]
    fn what_is_right_is_read() {
        let query = Query::read("types=a,c&limit=7", &["types", "limit"]).unwrap();
        assert_eq!(query.whole("limit", 1), Ok(Some(7)));
        assert_eq!(query.words("types", &[("a", 1), ("b", 2), ("c", 3)]), Ok(Some(vec![1, 3])));
        assert_eq!(Query::read("", &[]).unwrap().text("types"), None);
    }
}
