//! Guessable cookies: whether a captured digest is that of a published default or of a word that anybody tries first.
//!
//! A digest is MD5 over the cookie and the challenge as a decimal number (OTP, "Distribution Protocol", section
//! "Distribution Handshake"), and both are on the wire. So a word is checked with one MD5 and no traffic. What is said of a
//! match is which entry of which list it was; a word never leaves this file.

use md5::{Digest, Md5};

use crate::policy::CookieWord;

/// Digests that the caller should have checked in a second, all connections together. A check costs some 100 µs, so
/// that a flood of handshakes takes 1 % of a core; what is not checked should be counted.
pub const CHECKS_PER_SECOND: u32 = 100;
/// Words of the operator that are taken. 10,000 make a check cost 2 ms.
pub const MAX_OPERATOR_WORDS: usize = 10_000;
/// Bytes of a cookie: it is an atom.
const MAX_COOKIE: usize = 255 * 4;
/// Names of the connection that are tried: full name, alive part and host of both nodes, and two more.
const MAX_HINTS: usize = 8;

/// Cookies that products ship or document (`docs/protocol.md` §10.2), with what to call the entry.
const PUBLISHED: [(&str, &str); 16] = [
    ("monster", "published default of Apache CouchDB"),
    ("emqxsecretcookie", "published default of EMQX"),
    ("emqx50elixir", "published default of EMQX 5"),
    ("emqsecretcookie", "published default of EMQ 2"),
    ("vmq", "published default of VerneMQ"),
    ("riak", "published default of Riak"),
    ("mongooseim", "published default of MongooseIM"),
    ("ejabberd", "published default of the ejabberd release"),
    ("dummycookie123", "published default of the ejabberd container examples"),
    ("leofs", "published default of LeoFS (schema)"),
    ("401321b4", "published default of LeoFS (configuration)"),
    ("change_me", "published default of 2600Hz Kazoo"),
    ("ClueCon", "published default of FreeSWITCH"),
    ("bookshelf", "published default of Chef bookshelf"),
    ("mycookie", "published default of the RabbitMQ compose example"),
    ("nocookie", "value of a node that was started with -nocookie"),
];

/// Words that are tried first by anybody who guesses. An entry is named by its number, from 1.
const COMMON: [&str; 65] = [
    "cookie",
    "secret",
    "erlang",
    "password",
    "admin",
    "elixir",
    "test",
    "root",
    "default",
    "guest",
    "changeme",
    "letmein",
    "123456",
    "qwerty",
    "rabbit",
    "rabbitmq",
    "beam",
    "dev",
    "prod",
    "staging",
    "production",
    "development",
    "secretcookie",
    "secret_cookie",
    "supersecret",
    "mysecret",
    "my_secret",
    "my_cookie",
    "erlangcookie",
    "erlang_cookie",
    "elixircookie",
    "thecookie",
    "the_cookie",
    "cookies",
    "cluster",
    "node",
    "app",
    "myapp",
    "my_app",
    "phoenix",
    "otp",
    "erl",
    "iex",
    "livebook",
    "nerves",
    "server",
    "master",
    "main",
    "local",
    "localhost",
    "demo",
    "example",
    "foo",
    "bar",
    "foobar",
    "abc123",
    "12345",
    "12345678",
    "1234",
    "pass",
    "passw0rd",
    "welcome",
    "abc",
    "a",
    "xyz",
];
/// What is put behind a common word or a name.
const SUFFIXES: [&str; 3] = ["", "1", "123"];

/// All words that a digest is compared with.
pub struct Dictionary {
    words: Vec<Word>,
    left_out: usize,
}

struct Word {
    entry: Entry,
    word: Vec<u8>,
}

enum Entry {
    Published(&'static str),
    Common(usize),
    Operator(String),
}

impl Entry {
    fn name(&self) -> String {
        match self {
            Self::Published(name) => (*name).to_owned(),
            Self::Common(number) => format!("common word list, entry {number}"),
            Self::Operator(name) => name.clone(),
        }
    }
}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dictionary").field("words", &self.words.len()).finish_non_exhaustive()
    }
}

impl Default for Dictionary {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Dictionary {
    /// The published defaults, the operator's words, and the common words with and without a number behind them.
    #[must_use]
    pub fn new(operator: &[CookieWord]) -> Self {
        let published = PUBLISHED.iter().map(|&(word, entry)| (Entry::Published(entry), word.as_bytes().to_vec()));
        let own = operator.iter().take(MAX_OPERATOR_WORDS);
        let own = own.map(|word| (Entry::Operator(word.entry.clone()), word.word.clone()));
        let common = COMMON.iter().zip(1..).flat_map(|(word, number)| {
            SUFFIXES.map(|suffix| (Entry::Common(number), [word.as_bytes(), suffix.as_bytes()].concat()))
        });
        let words = published.chain(own).chain(common);
        let words =
            words.filter(|(_, word)| word.len() <= MAX_COOKIE).map(|(entry, word)| Word { entry, word }).collect();
        Self { words, left_out: operator.len().saturating_sub(MAX_OPERATOR_WORDS) }
    }

    /// Words of the operator that [`MAX_OPERATOR_WORDS`] left out.
    #[must_use]
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// The entry whose word gives this digest over the challenge, if there is one.
    ///
    /// `hints` are names of the connection: full name, alive part and host of either node. Release templates make the
    /// node's name the cookie, or the name and `_cookie`; also tried are the name with 1 or 123 behind it, and backwards.
    #[must_use]
    pub fn find(&self, challenge: u32, digest: &[u8; 16], hints: &[&str]) -> Option<String> {
        let challenge = challenge.to_string();
        let gives = |parts: &[&[u8]]| digest_of(parts, challenge.as_bytes()) == *digest;
        if let Some(word) = self.words.iter().find(|word| gives(&[&word.word])) {
            return Some(word.entry.name());
        }
        for hint in hints.iter().take(MAX_HINTS).filter(|hint| hint.len() <= MAX_COOKIE) {
            // A cookie is an atom, and each of its characters goes into the digest as one byte.
            let Some(name) = latin1(hint) else { continue };
            if gives(&[&name]) {
                return Some("the node's own name".into());
            }
            let backwards: Vec<u8> = name.iter().rev().copied().collect();
            let endings: [&[u8]; 4] = [b"_cookie", b"cookie", b"1", b"123"];
            if gives(&[&backwards]) || endings.iter().any(|ending| gives(&[&name, ending])) {
                return Some("a variation of the node's own name".into());
            }
        }
        None
    }
}

/// One byte a character; `None` where a character has no such byte, as no cookie does.
fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

fn digest_of(cookie: &[&[u8]], challenge: &[u8]) -> [u8; 16] {
    let mut md5 = Md5::new();
    for part in cookie {
        md5.update(part);
    }
    md5.update(challenge);
    md5.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captured::connections;
    use crate::packet::Side;

    fn words(words: &[&str]) -> Vec<CookieWord> {
        words
            .iter()
            .zip(1..)
            .map(|(word, line)| CookieWord { entry: format!("line {line}"), word: word.as_bytes().to_vec() })
            .collect()
    }

    fn digest(hexadecimal: &str) -> [u8; 16] {
        u128::from_str_radix(hexadecimal, 16).unwrap().to_be_bytes()
    }

    #[test]
    fn digests_of_real_handshakes_are_reproduced() {
        let dictionary = Dictionary::new(&words(&["refcookie", "badcookie"]));
        let cases = [
            (2_824_624_886, "6519417ced33e3365ffc35d030cf5306", "line 1"),
            (363_282_483, "0077a7e9e4119ab8470e367decc5786c", "line 1"),
            (2_974_322_330, "1189f554952ca4d2b4d9e142960e65e8", "line 2"),
        ];
        for (challenge, hexadecimal, entry) in cases {
            assert_eq!(dictionary.find(challenge, &digest(hexadecimal), &[]).as_deref(), Some(entry));
            assert_eq!(Dictionary::default().find(challenge, &digest(hexadecimal), &[]), None);
        }
    }

    /// Challenge of the acceptor and digest of the initiator, of every cleartext handshake in a capture.
    fn proofs(name: &str) -> Vec<(u32, [u8; 16])> {
        let proof = |octets: (Vec<u8>, Vec<u8>)| {
            let (client, server) = octets;
            let challenge = frames(&server).into_iter().find(|frame| frame.first() == Some(&b'N'))?;
            let reply = frames(&client).into_iter().find(|frame| frame.first() == Some(&b'r') && frame.len() == 21)?;
            Some((u32::from_be_bytes(challenge[9..13].try_into().ok()?), reply[5..21].try_into().ok()?))
        };
        connections(name)
            .iter()
            .filter_map(|one| proof((one.octets(Side::Initiator), one.octets(Side::Acceptor))))
            .collect()
    }

    fn frames(mut octets: &[u8]) -> Vec<&[u8]> {
        let mut frames = Vec::new();
        while let Some((length, rest)) = octets.split_first_chunk::<2>() {
            let Some((frame, rest)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else { break };
            frames.push(frame);
            octets = rest;
        }
        frames
    }

    #[test]
    fn the_default_of_couchdb_is_found_in_a_capture_and_the_word_is_not_said() {
        let proofs = proofs("cookie-monster-otp27.pcap");
        assert!(!proofs.is_empty());
        for (challenge, digest) in proofs {
            let entry = Dictionary::default().find(challenge, &digest, &["web@host-a"]).unwrap();
            assert_eq!(entry, "published default of Apache CouchDB");
            assert!(!entry.contains("monster"));
        }
    }

    #[test]
    fn each_guess_of_an_attacker_is_known_to_the_lists() {
        let proofs = proofs("cookie-guess20-otp25.pcap");
        assert_eq!(proofs.len(), 20);
        let dictionary = Dictionary::default();
        let found: Vec<_> =
            proofs.iter().filter_map(|(challenge, digest)| dictionary.find(*challenge, digest, &[])).collect();
        assert_eq!(found.len(), 20, "{found:?}");
        assert_eq!(found.iter().filter(|entry| entry.starts_with("published")).count(), 1);
    }

    #[test]
    fn a_cookie_made_from_the_nodes_name_is_found_by_it() {
        let dictionary = Dictionary::default();
        let hints = ["shop@host-b.example", "shop", "host-b.example"];
        let of = |cookie: &[u8]| dictionary.find(77, &digest_of(&[cookie], b"77"), &hints);
        assert_eq!(of(b"shop").as_deref(), Some("the node's own name"));
        assert_eq!(of(b"shop@host-b.example").as_deref(), Some("the node's own name"));
        for variation in [&b"shop_cookie"[..], b"shop1", b"shop123", b"pohs"] {
            assert_eq!(of(variation).as_deref(), Some("a variation of the node's own name"));
        }
        assert_eq!(of(b"shop124"), None);
        assert_eq!(of(b"KJHSGDFRTEYUWIQOPLMN"), None);
    }

    #[test]
    fn no_word_is_in_the_name_of_its_own_entry_or_in_the_debug_form() {
        let dictionary = Dictionary::new(&words(&["hunter2"]));
        assert!(!format!("{dictionary:?}").contains("hunter2"));
        for word in COMMON.iter().filter(|word| word.len() > 4) {
            let digest = digest_of(&[word.as_bytes()], b"1");
            let entry = dictionary.find(1, &digest, &[]).unwrap();
            assert!(entry.starts_with("common word list, entry "), "{entry}");
        }
    }

    #[test]
    fn no_word_is_listed_twice() {
        let mut all: Vec<_> = COMMON.iter().chain(PUBLISHED.iter().map(|(word, _)| word)).collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn words_beyond_the_limit_are_counted() {
        let many = vec![CookieWord { entry: String::new(), word: b"x-y".to_vec() }; MAX_OPERATOR_WORDS + 3];
        assert_eq!(Dictionary::new(&many).left_out(), 3);
    }
}
