//! Queries of PromQL and LogQL, read as far as the tests need it: which names stand where.

use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A name, a number, a word of the language.
    Word(String),
    /// What stands in quotes.
    Text(String),
    /// Everything else but white space.
    Sign(char),
}

/// A query, or a text with queries in it.
pub(crate) struct Query(Vec<Token>);

/// What stands in braces, with the name before them (none in LogQL).
#[derive(Debug)]
pub(crate) struct Selector {
    /// The metric.
    pub(crate) metric: String,
    /// Label, operator, value.
    pub(crate) matchers: Vec<(String, String, String)>,
    /// The function that is applied to it, where it is one that takes a range.
    pub(crate) function: Option<String>,
    /// What stands in brackets behind it.
    pub(crate) range: Option<String>,
}

impl Query {
    pub(crate) fn read(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(first) = rest.next() {
            if first == '"' || first == '`' {
                let mut inside = String::new();
                while let Some(next) = rest.next().filter(|&next| next != first) {
                    // An escaped quotation mark is part of the text.
                    inside.push(if next == '\\' && first == '"' { rest.next().unwrap_or(next) } else { next });
                }
                tokens.push(Token::Text(inside));
            } else if is_part(first) {
                let mut word = String::from(first);
                while let Some(next) = rest.next_if(|&next| is_part(next)) {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            } else if !first.is_whitespace() {
                tokens.push(Token::Sign(first));
            }
        }
        Self(tokens)
    }

    /// Every metric, with what is selected of it; of LogQL the streams.
    pub(crate) fn selectors(&self) -> Vec<Selector> {
        let mut found = Vec::new();
        for (place, token) in self.0.iter().enumerate() {
            let braces = self.sign(place + 1) == Some('{');
            let metric = match token {
                Token::Word(word) if braces || is_metric(word) => word.clone(),
                Token::Sign('{') if place == 0 || !matches!(self.0[place - 1], Token::Word(_)) => String::new(),
                _ => continue,
            };
            let open = if metric.is_empty() { place } else { place + 1 };
            let (matchers, after) = if self.sign(open) == Some('{') { self.matchers(open) } else { (Vec::new(), open) };
            let bracket = (after..self.0.len()).take(1).find(|&at| self.sign(at) == Some('['));
            let range = bracket.map(|at| self.until(at + 1, ']').0);
            let function = (place > 1 && self.sign(place - 1) == Some('(')).then(|| self.word(place - 2)).flatten();
            found.push(Selector { metric, matchers, function, range });
        }
        found
    }

    /// The labels in `by (…)`, `without (…)`, `on (…)` and the like.
    pub(crate) fn grouped_by(&self) -> BTreeSet<String> {
        let mut labels = BTreeSet::new();
        for place in 0..self.0.len() {
            let by = self.word(place);
            let groups = matches!(by.as_deref(), Some("by" | "without" | "on" | "ignoring"));
            if groups && self.sign(place + 1) == Some('(') {
                labels.extend(self.words_until(place + 2, ')'));
            }
        }
        labels
    }

    /// Names that `| json name="path"` and `| label_format name=…` make, with the paths of the first.
    pub(crate) fn extracted(&self) -> Vec<(String, Option<String>)> {
        let mut names = Vec::new();
        for place in 0..self.0.len() {
            let stage = self.word(place);
            if !matches!(stage.as_deref(), Some("json" | "label_format"))
                || self.sign(place.wrapping_sub(1)) != Some('|')
            {
                continue;
            }
            let mut at = place + 1;
            while let (Some(name), Some('='), Some(Token::Text(text))) =
                (self.word(at), self.sign(at + 1), self.0.get(at + 2))
            {
                names.push((name, (stage.as_deref() == Some("json")).then(|| text.clone())));
                at += if self.sign(at + 3) == Some(',') { 4 } else { 3 };
            }
        }
        names
    }

    /// Labels that `| label="value"` and `| unwrap label` look at.
    pub(crate) fn filtered_by(&self) -> BTreeSet<String> {
        let pipes = (0..self.0.len()).filter(|&place| self.sign(place) == Some('|'));
        pipes
            .filter_map(|place| {
                let word = self.word(place + 1)?;
                match word.as_str() {
                    "json" | "label_format" | "line_format" => None,
                    "unwrap" => self.word(place + 2),
                    _ => Some(word),
                }
            })
            .collect()
    }

    /// Values of the matchers of one label, wherever they stand; alternatives one by one.
    pub(crate) fn values_of(&self, label: &str) -> Vec<String> {
        let mut values = Vec::new();
        for place in 0..self.0.len() {
            if self.word(place).as_deref() == Some(label) {
                let signs =
                    (place + 1..self.0.len()).take_while(|&at| matches!(self.sign(at), Some('=' | '~' | '!'))).count();
                if let (1.., Some(Token::Text(text))) = (signs, self.0.get(place + 1 + signs)) {
                    values.extend(text.split('|').map(str::to_owned));
                }
            }
        }
        values
    }

    fn matchers(&self, open: usize) -> (Vec<(String, String, String)>, usize) {
        let mut matchers = Vec::new();
        let mut at = open + 1;
        while at < self.0.len() && self.sign(at) != Some('}') {
            let Some(label) = self.word(at) else {
                at += 1;
                continue;
            };
            let mut operator = String::new();
            at += 1;
            while let Some(sign) = self.sign(at).filter(|sign| "=!~".contains(*sign)) {
                operator.push(sign);
                at += 1;
            }
            if let Some(Token::Text(value)) = self.0.get(at) {
                matchers.push((label, operator, value.clone()));
                at += 1;
            }
        }
        (matchers, at + 1)
    }

    fn words_until(&self, from: usize, close: char) -> Vec<String> {
        let inside = (from..self.0.len()).take_while(|&at| self.sign(at) != Some(close));
        inside.filter_map(|at| self.word(at)).collect()
    }

    fn until(&self, from: usize, close: char) -> (String, usize) {
        let mut text = String::new();
        let mut at = from;
        while at < self.0.len() && self.sign(at) != Some(close) {
            match &self.0[at] {
                Token::Word(word) | Token::Text(word) => text.push_str(word),
                Token::Sign(sign) => text.push(*sign),
            }
            at += 1;
        }
        (text, at)
    }

    fn word(&self, at: usize) -> Option<String> {
        match self.0.get(at) {
            Some(Token::Word(word)) => Some(word.clone()),
            _ => None,
        }
    }

    fn sign(&self, at: usize) -> Option<char> {
        match self.0.get(at) {
            Some(Token::Sign(sign)) => Some(*sign),
            _ => None,
        }
    }
}

/// A metric of distwatch. The name of a recording rule has colons and is none, nor is a file's name.
fn is_metric(word: &str) -> bool {
    word.starts_with("distwatch_") && !word.contains(':')
}

fn is_part(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | ':')
}

#[test]
fn a_query_is_read() {
    let query = Query::read(r#"sum by (sink) (rate(distwatch_x_total{a="b", c=~"d|e"}[$__rate_interval])) > up"#);
    let selectors = query.selectors();
    assert_eq!(selectors.len(), 1);
    let found = &selectors[0];
    assert_eq!((found.metric.as_str(), found.function.as_deref()), ("distwatch_x_total", Some("rate")));
    assert_eq!(found.range.as_deref(), Some("$__rate_interval"));
    assert_eq!(found.matchers[1], ("c".into(), "=~".into(), "d|e".into()));
    assert_eq!(query.grouped_by(), BTreeSet::from(["sink".to_owned()]));
    assert_eq!(query.values_of("c"), ["d", "e"]);

    let query =
        Query::read(r#"count_over_time({s="t"} |~ "x" | json n="link.node", m="a" | n="b" | unwrap m [$__auto])"#);
    assert_eq!(query.selectors()[0].matchers, [("s".into(), "=".into(), "t".into())]);
    assert_eq!(query.extracted(), [("n".into(), Some("link.node".into())), ("m".into(), Some("a".into()))]);
    assert_eq!(query.filtered_by(), BTreeSet::from(["m".to_owned(), "n".to_owned()]));
}
