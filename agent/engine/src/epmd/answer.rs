//! EPMD answers, which carry no length: what there is, when it is whole, and what it means.

use crate::model::{EpmdName, EpmdNode, EpmdRequest};
use crate::text::printable;
use crate::wire::{Malformed, Reader};

use super::NAME_TEXT;

/// Names that are kept of one NAMES or DUMP answer; the rest is counted. Hosts run tens of nodes, not thousands.
pub(super) const MAX_NAMES: usize = 4096;
/// Names that the answer in words shows before it only counts.
const SHOWN_NAMES: usize = 64;

/// An answer, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// In words.
    pub(super) result: String,
    /// The daemon did what was asked.
    pub(super) accepted: bool,
    /// What PORT2_RESP says of the node.
    pub(super) node: Option<EpmdNode>,
    /// The name in PORT2_RESP.
    pub(super) name: String,
    /// What ALIVE2_RESP gave.
    pub(super) creation: Option<u32>,
    /// The lines of a list.
    pub(super) names: Vec<EpmdName>,
    /// Names of the list that were left out.
    pub(super) names_left_out: usize,
    /// A name in it holds control characters or spaces: it may forge lines.
    pub(super) odd_name: bool,
    /// Something in it could not be read.
    pub(super) unreadable: Option<String>,
}

impl Answer {
    fn told(result: &str, accepted: bool) -> Self {
        Self { result: result.to_owned(), accepted, ..Self::default() }
    }

    fn unreadable(what: String) -> Self {
        Self { result: "none".into(), unreadable: Some(what), ..Self::default() }
    }

    /// Reads an answer to `request`. `None`: more can come and is needed. With `ended` there is always an answer.
    pub(super) fn read(request: EpmdRequest, bytes: &[u8], ended: bool) -> Option<Self> {
        match request {
            EpmdRequest::Alive2 => whole(registration(bytes), ended),
            EpmdRequest::PortPlease2 => whole(port(bytes), ended),
            EpmdRequest::Kill if bytes.starts_with(b"OK") => Some(Self::told("killed", true)),
            EpmdRequest::Kill if bytes.starts_with(b"NO") => Some(Self::told("refused", false)),
            // The end of a list, and whether STOPPED follows NOEXIST, is known from the end of the connection alone.
            _ if !ended => None,
            EpmdRequest::Names => Some(list(bytes, name_line)),
            EpmdRequest::Dump => Some(list(bytes, dump_line)),
            EpmdRequest::Stop if bytes.starts_with(b"STOPPED") => Some(Self::told("stopped", true)),
            EpmdRequest::Stop if bytes.starts_with(b"NOEXIST") => Some(Self::told("not_found", false)),
            EpmdRequest::Kill | EpmdRequest::Stop => Some(Self::unreadable("answer is none of the known words".into())),
        }
    }

    /// Which request an answer belongs to whose request was not captured.
    pub(super) fn request_of(bytes: &[u8]) -> Option<EpmdRequest> {
        match bytes {
            [118 | 121, ..] => Some(EpmdRequest::Alive2),
            [119, ..] => Some(EpmdRequest::PortPlease2),
            b"OK" | b"NO" => Some(EpmdRequest::Kill),
            _ if bytes.starts_with(b"STOPPED") || bytes.starts_with(b"NOEXIST") => Some(EpmdRequest::Stop),
            [0, 0, _, _, rest @ ..] if rest.starts_with(b"active name") || rest.starts_with(b"old/unused") => {
                Some(EpmdRequest::Dump)
            }
            [0, 0, _, _, rest @ ..] if rest.is_empty() || rest.starts_with(b"name ") => Some(EpmdRequest::Names),
            _ => None,
        }
    }
}

fn whole(answer: Result<Answer, Malformed>, ended: bool) -> Option<Answer> {
    match answer {
        Ok(answer) => Some(answer),
        Err(error) if error.fault == crate::wire::Fault::Truncated && !ended => None,
        Err(error) => Some(Answer::unreadable(error.to_string())),
    }
}

/// ALIVE2_RESP and ALIVE2_X_RESP (OTP, "Distribution Protocol", section "Register a Node in EPMD").
fn registration(bytes: &[u8]) -> Result<Answer, Malformed> {
    let mut reader = Reader::new(bytes);
    let long = match reader.u8("answer")? {
        118 => true,
        121 => false,
        tag => return Err(Malformed { what: "answer", offset: 0, fault: crate::wire::Fault::UnknownTag(tag) }),
    };
    let result = reader.u8("result")?;
    let creation = if long { reader.u32("creation")? } else { u32::from(reader.u16("creation")?) };
    if result != 0 {
        // The creation of a refusal is always 99 and means nothing.
        return Ok(Answer::told("refused", false));
    }
    Ok(Answer { creation: Some(creation), ..Answer::told(&format!("creation {creation}"), true) })
}

/// PORT2_RESP (OTP, "Distribution Protocol", section "Get the Distribution Port of Another Node").
fn port(bytes: &[u8]) -> Result<Answer, Malformed> {
    let mut reader = Reader::new(bytes);
    let tag = reader.u8("answer")?;
    if tag != 119 {
        return Err(Malformed { what: "answer", offset: 0, fault: crate::wire::Fault::UnknownTag(tag) });
    }
    if reader.u8("result")? != 0 {
        return Ok(Answer::told("not_found", false));
    }
    let node = EpmdNode {
        port: reader.u16("port")?,
        node_type: reader.u8("node type")?,
        protocol: reader.u8("protocol")?,
        highest_version: reader.u16("highest version")?,
        lowest_version: reader.u16("lowest version")?,
    };
    let length = reader.u16("name length")?;
    let name = printable(reader.bytes("node name", usize::from(length))?, NAME_TEXT);
    let length = reader.u16("extra length")?;
    reader.bytes("extra", usize::from(length))?;
    let told = Answer::told(&format!("port {}", node.port), true);
    Ok(Answer { node: Some(node), name, ..told })
}

/// A line of a list: a live node, or one that was struck off.
enum Line<'a> {
    Active(&'a [u8], u16),
    Unused(&'a [u8]),
}

/// NAMES and DUMP answers: the port of the daemon, then lines of text.
///
/// A name may hold spaces and newlines (epmd takes them), so a line only ends where its right end has the right form.
fn list(bytes: &[u8], line: fn(&[u8]) -> Option<Line<'_>>) -> Answer {
    let Some((_port, text)) = bytes.split_first_chunk::<4>() else {
        return Answer::unreadable("list ends before the port of the daemon".into());
    };
    let mut answer = Answer { accepted: true, ..Answer::default() };
    let (mut total, mut unused) = (0_usize, 0_usize);
    let (mut start, mut end) = (0, 0);
    while let Some(length) = text.get(end..).and_then(|rest| rest.iter().position(|&byte| byte == b'\n')) {
        let entry = text.get(start..end + length).unwrap_or_default();
        end += length + 1;
        let entry = entry.strip_prefix(b"\0").unwrap_or(entry);
        // An entry longer than any name and its frame is no entry: give it up, so that the search stays linear.
        let (name, port) = match line(entry) {
            Some(Line::Active(name, port)) => (name, port),
            Some(Line::Unused(name)) => {
                answer.odd_name |= is_odd(name);
                unused += 1;
                start = end;
                continue;
            }
            None if entry.len() > LONGEST_LINE => {
                answer.unreadable = Some("a line of the list has no known form".into());
                start = end;
                continue;
            }
            None => continue,
        };
        start = end;
        total += 1;
        answer.odd_name |= is_odd(name);
        if answer.names.len() < MAX_NAMES {
            answer.names.push(EpmdName { name: printable(name, NAME_TEXT), port });
        }
    }
    if text.get(start..).is_some_and(|rest| !matches!(rest, [] | [0])) {
        answer.unreadable = Some("the last line of the list is not whole".into());
    }
    answer.names_left_out = total - answer.names.len();
    answer.result = in_words(&answer.names, total, unused);
    answer
}

/// A name of 1020 bytes with the words around it.
const LONGEST_LINE: usize = 1200;

fn is_odd(name: &[u8]) -> bool {
    name.iter().any(|&byte| byte <= b' ' || byte == 0x7f)
}

fn in_words(names: &[EpmdName], total: usize, unused: usize) -> String {
    let mut words = if total == 0 { "no names".to_owned() } else { String::new() };
    for (index, entry) in names.iter().take(SHOWN_NAMES).enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        words.push_str(&format!("{separator}{}:{}", entry.name, entry.port));
    }
    if total > SHOWN_NAMES {
        words.push_str(&format!(" and {} more", total - SHOWN_NAMES));
    }
    if unused > 0 {
        words.push_str(&format!(" ({unused} unused)"));
    }
    words
}

/// `name <NAME> at port <PORT>`, without the newline.
fn name_line(line: &[u8]) -> Option<Line<'_>> {
    let (front, port) = ends_in_number(line, b" at port ")?;
    Some(Line::Active(front.strip_prefix(b"name ")?, u16::try_from(port).ok()?))
}

/// `active name     <NAME> at port P, fd = F` with real angle brackets, or `old/unused name <NAME>, port = P, fd = F `.
fn dump_line(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b" ").unwrap_or(line);
    let (front, _descriptor) = ends_in_number(line, b", fd = ")?;
    if let Some(old) = front.strip_prefix(b"old/unused name") {
        let (name, _port) = ends_in_number(old, b", port = ")?;
        return Some(Line::Unused(in_brackets(name)?));
    }
    let (front, port) = ends_in_number(front.strip_prefix(b"active name")?, b" at port ")?;
    Some(Line::Active(in_brackets(front)?, u16::try_from(port).ok()?))
}

fn in_brackets(text: &[u8]) -> Option<&[u8]> {
    text.trim_ascii().strip_prefix(b"<")?.strip_suffix(b">")
}

/// Splits `…<words><digits>` at its right end. A minus (a descriptor that is closed) is passed over.
fn ends_in_number<'a>(line: &'a [u8], words: &[u8]) -> Option<(&'a [u8], u32)> {
    let digits = line.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (front, number) = line.split_at_checked(line.len().checked_sub(digits)?)?;
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    let front = front.strip_suffix(b"-").unwrap_or(front);
    Some((front.strip_suffix(words)?, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(answer: &Answer) -> Vec<(&str, u16)> {
        answer.names.iter().map(|entry| (entry.name.as_str(), entry.port)).collect()
    }

    #[test]
    fn a_name_with_newlines_is_one_name_and_is_flagged() {
        let text = b"\0\0\x11\x11name x\nname evil at port 1 at port 1234\nname db at port 5\n";
        let answer = Answer::read(EpmdRequest::Names, text, true).unwrap();
        assert_eq!(names(&answer), [("x\\u{a}name evil at port 1", 1234), ("db", 5)]);
        assert!(answer.odd_name);
        assert_eq!(answer.unreadable, None);
    }

    #[test]
    fn a_dump_has_names_in_brackets_and_nul_after_each_line() {
        let text = b"\0\0\x11\x11active name     <web> at port 41817, fd = 6\n\0old/unused name <db>, port = 34885, fd = -1 \n\0";
        let answer = Answer::read(EpmdRequest::Dump, text, true).unwrap();
        assert_eq!(names(&answer), [("web", 41817)]);
        assert_eq!(answer.result, "web:41817 (1 unused)");
        assert_eq!(answer.unreadable, None);
        assert!(!answer.odd_name);
    }

    #[test]
    fn an_answer_waits_for_its_bytes_and_no_longer() {
        let whole = b"\x77\x00\x88\x45\x4d\x00\x00\x06\x00\x05\x00\x02db\x00\x00";
        for end in 0..whole.len() {
            assert_eq!(Answer::read(EpmdRequest::PortPlease2, &whole[..end], false), None, "{end}");
        }
        let answer = Answer::read(EpmdRequest::PortPlease2, whole, false).unwrap();
        assert_eq!((answer.result.as_str(), answer.name.as_str()), ("port 34885", "db"));
        assert_eq!(Answer::read(EpmdRequest::PortPlease2, b"\x77\x01", false).unwrap().result, "not_found");
        assert_eq!(
            Answer::read(EpmdRequest::Alive2, b"\x76\x00\x6b\x03\xb5\xc3", false).unwrap().creation,
            Some(1_795_405_251)
        );
        assert_eq!(Answer::read(EpmdRequest::Alive2, b"\x79\x00\x00\x02", false).unwrap().creation, Some(2));
        assert_eq!(Answer::read(EpmdRequest::Alive2, b"\x76\x01\x00\x00\x00\x63", false).unwrap().result, "refused");
    }

    #[test]
    fn a_stop_of_an_unknown_name_is_not_found_although_stopped_follows() {
        assert_eq!(Answer::read(EpmdRequest::Stop, b"NOEXISTSTOPPED", true).unwrap().result, "not_found");
        assert_eq!(Answer::read(EpmdRequest::Stop, b"STOPPED", true).unwrap().result, "stopped");
    }

    #[test]
    fn a_list_keeps_a_bounded_number_of_names_and_counts_the_rest() {
        let mut text = vec![0, 0, 0x11, 0x11];
        for index in 0..MAX_NAMES + 10 {
            text.extend_from_slice(format!("name n{index} at port {}\n", index % 60_000).as_bytes());
        }
        let answer = Answer::read(EpmdRequest::Names, &text, true).unwrap();
        assert_eq!((answer.names.len(), answer.names_left_out), (MAX_NAMES, 10));
        assert!(answer.result.ends_with(&format!("and {} more", MAX_NAMES + 10 - SHOWN_NAMES)));
    }
}
