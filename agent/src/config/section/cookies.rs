//! `[cookies]`: words that a cookie must not be.

use std::path::PathBuf;

use distwatch_engine::policy::CookieWord;
use serde_json::json;

use super::Plain;
use crate::config::Config;
use crate::config::checker::{Checker, Item};
use crate::config::form::string;
use crate::config::key::Key;
use crate::config::mistake::quoted;

pub(super) const SECTION: Plain = Plain {
    name: "cookies",
    help: "Cookies that are too well known. The digests of a handshake in clear are compared with them.",
    keys: &[Key {
        name: "words_file",
        read: read_words_file,
        write: |config| config.words_file.as_ref().map(|path| string(&path.to_string_lossy())),
        schema: || json!({ "type": "string", "minLength": 1 }),
        help: "A file of words, one a line, in addition to the published defaults of products. A relative path \
               starts from the directory of this file. The words are never printed, only the number of the line.",
        example: None,
        unset: None,
        note: None,
    }
    .example(r#""/etc/distwatch/cookies.txt""#)
    .unset("only the published defaults of products")
    .note(|config| match config.policy.cookie_words.len() {
        1 => "1 word of the operator's own".to_owned(),
        count => format!("{count} words of the operator's own"),
    })],
};

/// The largest file of words: each word is tried on each handshake in clear.
const LARGEST: usize = 4 << 20;

/// The longest word: a cookie is an atom, and an atom has at most 255 characters of up to four octets
/// (Efficiency Guide, section "System Limits").
const LONGEST: usize = 255 * 4;

fn read_words_file(item: &Item<'_>, config: &mut Config, checker: &mut Checker<'_>) {
    let advice = "write the path of a file that has one word a line";
    let Some(text) = checker.text(item, advice) else { return };
    let path: PathBuf = checker.directory.join(text);
    let content = match (checker.read_file)(&path) {
        Ok(content) => content,
        Err(error) => {
            let what = format!("{} cannot be read: {error}", quoted(&path.to_string_lossy()));
            return checker.wrong(item.span(), what, "name a file that exists and that this user may read");
        }
    };
    if content.len() > LARGEST {
        let what = format!("{} has more than {} MiB", quoted(&path.to_string_lossy()), LARGEST >> 20);
        return checker.wrong(item.span(), what, "keep to the words that are worth trying on every handshake");
    }
    let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let lines = content.split(|&octet| octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = Vec::new();
    for (number, word) in (1..).zip(lines) {
        if word.len() > LONGEST {
            let what = format!("line {number} of {} is longer than any cookie", quoted(&path.to_string_lossy()));
            return checker.wrong(item.span(), what, "write one word a line");
        }
        if !word.is_empty() {
            words.push(CookieWord { entry: format!("{file} line {number}"), word: word.to_vec() });
        }
    }
    config.policy.cookie_words = words;
    config.words_file = Some(path);
}
