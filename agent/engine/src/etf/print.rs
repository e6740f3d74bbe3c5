//! Terms for people: their shape alone, or their text in Erlang syntax; bounded, and safe to show on a terminal.

use std::borrow::Cow;
use std::fmt::{self, Write};

use super::{Atom, Cursor, Token};

/// How much of a term is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What it is made of and how large the parts are, no contents: `{atom, integer, binary 12 bytes, list of 3}`.
    Types,
    /// Its text in Erlang syntax.
    Full,
}

/// Compounds within compounds that are written out; what is deeper shows as `…`. Enough for every message of OTP's own.
const DEPTH: usize = 24;

/// Elements of the outermost list that `Types` shows one by one: an argument list is one, and rarely has more.
const TYPES_LISTED: u32 = 16;

/// Nesting up to which elements that are not shown are passed over.
const SKIP_DEPTH: usize = 256;

/// Digits of an integer that are written out; larger ones show their size.
const DIGITS_SHOWN: usize = 64;

/// What stands for everything that is left out.
const LEFT_OUT: &str = "…";

/// Renders the term at `cursor` in at most `cap` octets, not counting the `…` that ends what was cut.
///
/// It never fails: where the term cannot be read on, the text ends with `…`.
#[must_use]
pub fn render(cursor: Cursor<'_>, detail: Detail, cap: usize) -> String {
    let mut printer = Printer { out: Capped { text: String::new(), cap }, cursor, detail, open: Vec::new() };
    if printer.run().is_none() {
        printer.out.text.push_str(LEFT_OUT);
    }
    printer.out.text
}

/// Text from the network, made safe to show: what is not UTF-8, control characters, and characters that turn the
/// direction of text or cannot be seen become `\x{…}`, and a backslash is doubled.
#[must_use]
pub fn printable(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && text.chars().all(is_plain)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_escaped(&mut out, c));
        chunk.invalid().iter().for_each(|&byte| push_code(&mut out, byte.into()));
    }
    Cow::Owned(out)
}

/// An atom as Erlang writes it: quoted where it has to be, safe to show.
#[must_use]
pub fn atom(atom: Atom<'_>) -> String {
    let Some(text) = atom.text else {
        return atom.to_text().into_owned();
    };
    let shown = if atom.latin1 { printable(atom.to_text().as_bytes()).into_owned().into() } else { printable(text) };
    if needs_no_quotes(text) { shown.into_owned() } else { format!("'{}'", shown.replace('\'', "\\'")) }
}

/// Characters that are shown as they are: a backslash begins an escape in Erlang's syntax, so it is not one of them.
fn is_plain(c: char) -> bool {
    c != '\\' && crate::text::is_plain(c)
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        c if is_plain(c) => out.push(c),
        c => push_code(out, c.into()),
    }
}

fn push_code(out: &mut String, code: u32) {
    // Writing to a String does not fail.
    let _ = write!(out, "\\x{{{code:x}}}");
}

fn needs_no_quotes(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_lowercase)
        && text.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'@')
        && !RESERVED.iter().any(|word| word.as_bytes() == text)
}

/// Words that an atom has to be quoted to be (Erlang reference manual, "Reserved Words").
const RESERVED: &[&str] = &[
    "after", "and", "andalso", "band", "begin", "bnot", "bor", "bsl", "bsr", "bxor", "case", "catch", "cond", "div",
    "else", "end", "fun", "if", "let", "maybe", "not", "of", "or", "orelse", "receive", "rem", "try", "when", "xor",
];

/// A text that takes no more than so many octets.
struct Capped {
    text: String,
    cap: usize,
}

impl Write for Capped {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = self.cap.saturating_sub(self.text.len());
        if piece.len() <= room {
            self.text.push_str(piece);
            return Ok(());
        }
        self.text.push_str(piece.get(..piece.floor_char_boundary(room)).unwrap_or_default());
        Err(fmt::Error)
    }
}

/// A compound that has been begun.
struct Open<'a> {
    kind: Kind<'a>,
    /// Elements to come, keys and values counted singly.
    left: u32,
    /// Elements so far.
    done: u32,
}

enum Kind<'a> {
    Tuple,
    /// The last of its elements is the tail.
    List,
    Map,
    /// At the names of its fields.
    Record(Cursor<'a>),
}

struct Printer<'a> {
    out: Capped,
    cursor: Cursor<'a>,
    detail: Detail,
    open: Vec<Open<'a>>,
}

impl<'a> Printer<'a> {
    /// Everything, or `None` where it had to end early.
    fn run(&mut self) -> Option<()> {
        self.term()?;
        while let Some(open) = self.open.last_mut() {
            let proper_end = matches!(open.kind, Kind::List) && open.left == 1 && next_is_nil(&mut self.cursor);
            if open.left == 0 || proper_end {
                let end = if matches!(open.kind, Kind::List) { "]" } else { "}" };
                self.open.pop();
                self.put(end)?;
                continue;
            }
            let separator = match (&open.kind, open.done) {
                (_, 0) => "",
                (Kind::Map, done) if done % 2 == 1 => " => ",
                (Kind::List, _) if open.left == 1 => "|",
                _ => ", ",
            };
            let name = if let Kind::Record(names) = &mut open.kind { Some(names.atom()?) } else { None };
            open.left -= 1;
            open.done = open.done.saturating_add(1);
            self.put(separator)?;
            if let Some(name) = name {
                self.put_args(format_args!("{} = ", atom(name)))?;
            }
            self.term()?;
        }
        Some(())
    }

    fn put(&mut self, text: &str) -> Option<()> {
        self.out.write_str(text).ok()
    }

    fn put_args(&mut self, arguments: fmt::Arguments<'_>) -> Option<()> {
        self.out.write_fmt(arguments).ok()
    }

    /// One token; what it opens is left to [`Printer::run`].
    fn term(&mut self) -> Option<()> {
        let start = self.cursor;
        let token = self.cursor.token().ok()?;
        let outermost = self.open.is_empty();
        let (kind, count, size) = match token {
            Token::Tuple(arity) => (Kind::Tuple, arity, arity),
            Token::List(count) => (Kind::List, count, count.saturating_add(1)),
            Token::Map(pairs) => (Kind::Map, pairs, pairs.saturating_mul(2)),
            Token::Record { fields, .. } => (Kind::Record(self.cursor), fields, fields),
            leaf => {
                return match self.detail {
                    Detail::Types => self.put_type(leaf, outermost),
                    Detail::Full => self.put_leaf(leaf),
                };
            }
        };
        let by_size = match (&kind, self.detail) {
            (Kind::List, Detail::Types) if !(outermost && count <= TYPES_LISTED) => Some("list of"),
            (Kind::Map, Detail::Types) => Some("map of"),
            (Kind::Record(_), Detail::Types) => Some("record of"),
            _ => None,
        };
        if by_size.is_some() || self.open.len() >= DEPTH {
            match by_size {
                Some(what) => self.put_args(format_args!("{what} {count}"))?,
                None => self.put(LEFT_OUT)?,
            }
            self.cursor = start;
            return self.cursor.skip(SKIP_DEPTH).ok();
        }
        match (&kind, token) {
            (_, Token::Record { module, name, .. }) => {
                self.put_args(format_args!("#{}:{}{{", atom(module), atom(name)))?;
                for _ in 0..count {
                    self.cursor.atom()?;
                }
            }
            (Kind::List, _) => self.put("[")?,
            (Kind::Map, _) => self.put("#{")?,
            _ => self.put("{")?,
        }
        self.open.push(Open { kind, left: size, done: 0 });
        Some(())
    }

    /// What kind of thing it is.
    fn put_type(&mut self, token: Token<'_>, outermost: bool) -> Option<()> {
        match token {
            Token::Str(bytes) if outermost && bytes.len() <= TYPES_LISTED as usize => {
                self.put(&format!("[{}]", vec!["integer"; bytes.len()].join(", ")))
            }
            Token::Str(bytes) => self.put_args(format_args!("list of {}", bytes.len())),
            Token::Binary(bytes) => self.put_args(format_args!("binary {} bytes", bytes.len())),
            Token::BitBinary { bytes, bits } => self.put_args(format_args!("bit string {} bits", bit_len(bytes, bits))),
            Token::Big { digits, .. } => self.put_args(format_args!("integer {} bytes", digits.len())),
            Token::Export { arity, .. } => self.put_args(format_args!("fun/{arity}")),
            Token::Fun { arity, .. } => self.put_args(format_args!("fun/{arity}")),
            Token::Atom(_) => self.put("atom"),
            Token::Integer(_) => self.put("integer"),
            Token::Float(_) => self.put("float"),
            Token::Nil => self.put("[]"),
            Token::Pid(_) => self.put("pid"),
            Token::Port { .. } => self.put("port"),
            Token::Reference(_) => self.put("reference"),
            Token::Tuple(_) | Token::List(_) | Token::Map(_) | Token::Record { .. } => self.put(LEFT_OUT),
        }
    }

    fn put_leaf(&mut self, token: Token<'_>) -> Option<()> {
        match token {
            Token::Atom(name) => self.put(&atom(name)),
            Token::Integer(value) => self.put_args(format_args!("{value}")),
            Token::Big { negative, digits } => self.put_big(negative, digits),
            Token::Float(value) => self.put(&float(value)),
            Token::Nil => self.put("[]"),
            Token::Str(bytes) => self.put_string(bytes),
            Token::Binary(bytes) => self.put_binary(bytes),
            Token::BitBinary { bytes, bits } => {
                let (last, whole) = bytes.split_last()?;
                self.put("<<")?;
                whole.iter().try_for_each(|byte| self.put_args(format_args!("{byte},")))?;
                self.put_args(format_args!("{}:{bits}>>", last.checked_shr(8_u32.saturating_sub(bits.into()))?))
            }
            Token::Pid(pid) => self.put_args(format_args!("<{}.{}.{}>", atom(pid.node), pid.id, pid.serial)),
            Token::Port { node, id, .. } => self.put_args(format_args!("#Port<{}.{id}>", atom(node))),
            Token::Reference(reference) => {
                self.put_args(format_args!("#Ref<{}", atom(reference.node)))?;
                let (words, _) = reference.words.as_chunks();
                words.iter().try_for_each(|word| self.put_args(format_args!(".{}", u32::from_be_bytes(*word))))?;
                self.put(">")
            }
            Token::Export { module, function, arity } => {
                self.put_args(format_args!("fun {}:{}/{arity}", atom(module), atom(function)))
            }
            Token::Fun { module, arity, index, .. } => {
                self.put_args(format_args!("#Fun<{}.{index}/{arity}>", atom(module)))
            }
            Token::Tuple(_) | Token::List(_) | Token::Map(_) | Token::Record { .. } => self.put(LEFT_OUT),
        }
    }

    fn put_big(&mut self, negative: bool, digits: &[u8]) -> Option<()> {
        if negative {
            self.put("-")?;
        }
        if digits.len() > DIGITS_SHOWN {
            return self.put_args(format_args!("#Integer<{} bytes>", digits.len()));
        }
        self.put("16#")?;
        let mut digits = digits.iter().rev().skip_while(|digit| **digit == 0);
        self.put_args(format_args!("{:X}", digits.next()?))?;
        digits.try_for_each(|digit| self.put_args(format_args!("{digit:02X}")))
    }

    /// A packed list: text where it reads as such, otherwise the numbers.
    fn put_string(&mut self, bytes: &[u8]) -> Option<()> {
        if bytes.iter().all(|byte| byte.is_ascii_graphic() || b" \n\r\t".contains(byte)) {
            return self.put_quoted(bytes);
        }
        self.put("[")?;
        self.put_numbers(bytes)?;
        self.put("]")
    }

    fn put_binary(&mut self, bytes: &[u8]) -> Option<()> {
        self.put("<<")?;
        // More than fits would not be shown, so it decides nothing; a character may be cut there.
        let seen = bytes.get(..self.out.cap).unwrap_or(bytes);
        let text = match std::str::from_utf8(seen) {
            Ok(text) => Some(text),
            Err(error) if error.error_len().is_none() && seen.len() < bytes.len() => {
                seen.get(..error.valid_up_to()).and_then(|seen| std::str::from_utf8(seen).ok())
            }
            Err(_) => None,
        };
        match text {
            Some(text) if text.chars().all(|c| !c.is_control() || "\n\r\t".contains(c)) => {
                if !text.is_empty() {
                    self.put_quoted(bytes)?;
                }
                self.put(if text.is_ascii() { ">>" } else { "/utf8>>" })
            }
            _ => {
                self.put_numbers(bytes)?;
                self.put(">>")
            }
        }
    }

    fn put_numbers(&mut self, bytes: &[u8]) -> Option<()> {
        for (place, byte) in bytes.iter().enumerate() {
            self.put_args(format_args!("{}{byte}", if place > 0 { "," } else { "" }))?;
        }
        Some(())
    }

    fn put_quoted(&mut self, bytes: &[u8]) -> Option<()> {
        // One octet gives at least one, so more than this would be cut anyway.
        let seen = bytes.get(..self.out.cap).unwrap_or(bytes);
        self.put("\"")?;
        self.put(&printable(seen).replace('"', "\\\""))?;
        if seen.len() < bytes.len() { None } else { self.put("\"") }
    }
}

/// Goes past an empty list, if that comes next.
fn next_is_nil(cursor: &mut Cursor<'_>) -> bool {
    let mut ahead = *cursor;
    let nil = matches!(ahead.token(), Ok(Token::Nil));
    if nil {
        *cursor = ahead;
    }
    nil
}

fn bit_len(bytes: &[u8], bits: u8) -> usize {
    bytes.len().saturating_sub(1).saturating_mul(8).saturating_add(bits.into())
}

/// A float with the point that Erlang wants.
fn float(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0e{exponent}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::vectors::hex;
    use crate::wire::Reader;

    fn shown(term: &str, detail: Detail) -> String {
        render(Cursor::new(Reader::new(&hex(term)), &[]), detail, 200)
    }

    #[test]
    fn terms_read_as_erlang_writes_them() {
        for (term, full, types) in [
            ("68036400016168006101", "{a, {}, 1}", "{atom, {}, integer}"),
            ("6c0000000264000161640001626a", "[a, b]", "[atom, atom]"),
            ("6c000000016400016164000162", "[a|b]", "[atom|atom]"),
            (
                "6c000000026c0000000162000003e86a68016c0000000164000178640001796a",
                "[[1000], {[x|y]}]",
                "[list of 1, {list of 1}]",
            ),
            ("6b0003616263", "\"abc\"", "[integer, integer, integer]"),
            ("68016b0003610062", "{[97,0,98]}", "{list of 3}"),
            ("7400000002640001616101640001626a", "#{a => 1, b => []}", "map of 2"),
            ("6d000000026869", "<<\"hi\">>", "binary 2 bytes"),
            ("6d00000000", "<<>>", "binary 0 bytes"),
            ("6d00000002d0b6", "<<\"ж\"/utf8>>", "binary 2 bytes"),
            ("6d0000000200ff", "<<0,255>>", "binary 2 bytes"),
            ("4d0000000303010260", "<<1,2,3:3>>", "bit string 19 bits"),
            ("463ff8000000000000", "1.5", "float"),
            ("467e37e43c8800759c", "1.0e300", "float"),
            ("6e080000000000000000 80", "16#8000000000000000", "integer 8 bytes"),
            ("5864000d6e6f6e6f6465406e6f686f7374000000090000000000000000", "<nonode@nohost.9.0>", "pid"),
            (
                "5a000364000d6e6f6e6f6465406e6f686f737400000000000386c5483800029ed987c4",
                "#Ref<nonode@nohost.231109.1211629570.2665056196>",
                "reference",
            ),
            ("716400056c697374736400036d61706102", "fun lists:map/2", "fun/2"),
            ("43000000020177016d7701727701617701626101 6a", "#m:r{a = 1, b = []}", "record of 2"),
            ("7702 4f4b", "'OK'", "atom"),
            ("7703 656e64", "'end'", "atom"),
            ("7703 612762", "'a\\'b'", "atom"),
            ("7300", "''", "atom"),
            ("7301e9", "'é'", "atom"),
        ] {
            assert_eq!(shown(term, Detail::Full), full, "{term}");
            assert_eq!(shown(term, Detail::Types), types, "{term}");
        }
    }

    #[test]
    fn what_could_deceive_a_reader_is_escaped_everywhere() {
        assert_eq!(printable("web@host-ж".as_bytes()), "web@host-ж");
        assert!(matches!(printable(b"plain"), Cow::Borrowed(_)));
        assert_eq!(printable(b"a\x1b[2J\n\xff\\"), "a\\x{1b}[2J\\x{a}\\x{ff}\\\\");
        assert_eq!(printable("evil\u{202e}gpj".as_bytes()), "evil\\x{202e}gpj");
        assert_eq!(shown("7706 61e280ae6278", Detail::Full), "'a\\x{202e}bx'");
        assert_eq!(shown("6d00000003 1b5b4a", Detail::Full), "<<27,91,74>>");
        assert_eq!(shown("7302 619b", Detail::Full), "'a\\x{9b}'", "a C1 control in Latin-1 too");
        assert_eq!(shown("6b000361220a", Detail::Full), "\"a\\\"\\x{a}\"");
    }

    #[test]
    fn text_ends_at_the_cap_whatever_the_size_of_the_term() {
        let long = [&[109, 0, 0x10, 0, 0][..], &vec![b'x'; 1 << 20]].concat();
        let list = [&[108, 0, 1, 0, 0][..], &[97, 7].repeat(1 << 16), &[106]].concat();
        for bytes in [long, list] {
            let text = render(Cursor::new(Reader::new(&bytes), &[]), Detail::Full, 40);
            assert!(text.ends_with(LEFT_OUT) && text.len() <= 40 + LEFT_OUT.len(), "{text}");
            let types = render(Cursor::new(Reader::new(&bytes), &[]), Detail::Types, 40);
            assert!(["binary 1048576 bytes", "list of 65536"].contains(&types.as_str()), "{types}");
        }
    }

    #[test]
    fn nesting_is_shown_to_a_depth_and_then_left_out() {
        let deep = [[104, 1].repeat(40), vec![106]].concat();
        let text = render(Cursor::new(Reader::new(&deep), &[]), Detail::Full, 1000);
        assert_eq!(text, format!("{}…{}", "{".repeat(DEPTH), "}".repeat(DEPTH)));
        let deeper = [[104, 1].repeat(100_000), vec![106]].concat();
        assert!(render(Cursor::new(Reader::new(&deeper), &[]), Detail::Full, 1000).ends_with(LEFT_OUT));
    }

    #[test]
    fn a_term_that_ends_early_shows_what_there_is() {
        assert_eq!(render(Cursor::cut(Reader::new(&hex("6803640001616101")), &[]), Detail::Full, 99), "{a, 1, …");
        assert_eq!(render(Cursor::new(Reader::new(&[]), &[]), Detail::Types, 99), "…");
    }
}
