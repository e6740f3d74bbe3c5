//! From the start of a frame to a message: header, control message, start of the payload.

use super::atom_cache::{AtomCache, Slot};
use super::control::Control;
use super::fingerprint::{Build, Fingerprint};
use super::fragments::Sequences;
use super::header::{AtomTable, Header, MAX_HEADER, Unknown};
use super::resync::Framing;
use super::walk::{Terms, Walk};
use super::{Context, Message, Output};
use crate::etf::{Atom, Cursor, Token};
use crate::wire::{Fault, Malformed, Reader};

/// Octets of a frame with which reading is tried first. A control message with its header takes some hundred octets, so
/// this holds some 8 KiB of the payload: more than any shape that is looked for in one.
pub(super) const HEAD: usize = 8 << 10;

/// Octets of payload without which a longer start of the frame is waited for.
const PAYLOAD: usize = 4 << 10;

/// Octets of a frame that are kept at most: the largest header, and as much again for a control message, whose only part
/// without a bound of its own is the exit reason that nodes before OTP 22 put there.
pub(super) const MAX_HEAD: usize = 2 * MAX_HEADER;

/// Octets of a further fragment before its part of the payload.
pub(super) const FRAGMENT_HEAD: usize = 18;

/// Frames in a row that must read well before something odd counts as the peer's doing though the start was not seen.
const TRUSTED_AFTER: u32 = 16;

/// What a frame's start gave.
///
/// It is moved for every frame. A box is less work than that, for only of frames that are longer than what is read at once,
/// or are fragments, a rest is to come.
pub(super) enum Opened {
    /// More of the frame must be there.
    More,
    /// No frame begins like this.
    Astray(&'static str),
    /// All that had to be read of the frame was.
    Done,
    /// The rest of the frame is to be walked.
    Open(Box<Active>),
}

/// A frame whose head was read.
pub(super) struct Active {
    pub(super) walk: Walk,
    /// Of a fragmented message that goes on: its sequence id, and the number of the next fragment.
    pub(super) goes_on: Option<(u64, u64)>,
}

impl Active {
    pub(super) const fn lost() -> Self {
        Self { walk: Walk::lost(), goes_on: None }
    }
}

/// What one direction's frames leave behind for the next ones.
#[derive(Default)]
pub(super) struct Decoder {
    pub(super) cache: AtomCache,
    pub(super) sequences: Sequences,
    pub(super) fingerprint: Fingerprint,
    /// The start was seen, and no octet is missing since.
    pub(super) whole: bool,
    /// It began in the middle: what was set before is unknown.
    pub(super) mid_stream: bool,
    /// Further fragments may come of sequences that are not known.
    pub(super) orphans: bool,
    /// Frames that read well since the start or the last gap.
    pub(super) good: u32,
}

/// What the frame says before the control message.
#[derive(Clone, Copy)]
struct Envelope<'a> {
    header: Header<'a>,
    pass_through: bool,
    /// Sequence id and number of a first fragment that others follow.
    fragment: Option<(u64, u64)>,
    /// All octets of the frame are here.
    complete: bool,
    /// No longer start of the frame will be offered.
    last_try: bool,
    frame_len: u32,
}

impl Decoder {
    /// Of a direction that begins with its first frame, or in the middle.
    pub(super) fn new(mid_stream: bool) -> Self {
        Self { whole: !mid_stream, mid_stream, orphans: mid_stream, ..Self::default() }
    }

    /// Whether something odd is the peer's doing.
    pub(super) const fn strict(&self) -> bool {
        self.whole || self.good >= TRUSTED_AFTER
    }

    /// Octets are missing and whole frames may be among them.
    pub(super) fn frames_missing(&mut self) {
        self.cache.taint();
        self.sequences.clear();
        self.octets_missing();
    }

    /// Octets are missing inside one frame.
    pub(super) fn octets_missing(&mut self) {
        self.whole = false;
        self.orphans = true;
        self.good = 0;
    }

    /// The short way for nearly every frame: it is all here and no fragment, its header refers to what is known (or is
    /// missing for good) and sets nothing, and what it holds reads well to the end. Any other frame it leaves, untouched
    /// and with `false`, to [`open`](Self::open); where it takes one, both say the same of it.
    #[inline]
    pub(super) fn take_plain<O: Output>(&mut self, cx: &mut Context<'_, O>, frame: &[u8]) -> bool {
        self.read_plain(cx, frame).is_some()
    }

    fn read_plain<O: Output>(&mut self, cx: &mut Context<'_, O>, frame: &[u8]) -> Option<()> {
        let ([131, 68, rest @ ..], Framing::Header | Framing::Any) = (frame, cx.framing()) else { return None };
        let Self { cache, fingerprint, whole, good, .. } = self;
        let (header, rest) = Header::plain(rest)?;
        let mut table = AtomTable::new();
        let may_be_unknown = !*whole && fingerprint.is_done_in_vain();
        if !header.resolve_plain(cache, may_be_unknown, &mut table) {
            return None;
        }
        let control = Control::plain(rest)?;
        let row = control.operation.row().filter(|row| row.takes(control.arity))?;
        let elements = after(Reader::new(frame), frame.len() - rest.len() + control.elements_at);
        let elements = Cursor::new(elements, &table);
        let mut at = elements;
        at.skip_all(control.arity, cx.bounds.term_depth).ok()?;
        let payload = row.payload.then_some(at);
        if row.payload {
            at.skip_any(cx.bounds.term_depth).ok()?;
        }
        if !at.reader.is_empty() {
            return None;
        }
        cx.out.message(&Message {
            at: *cx.at,
            side: cx.side,
            operation: control.operation,
            control: elements,
            arity: control.arity,
            payload,
            frame_len: frame.len() as u32,
        });
        *good = good.saturating_add(1);
        Some(())
    }

    /// Reads what is there of a frame of `len` octets.
    pub(super) fn open<O: Output>(&mut self, cx: &mut Context<'_, O>, body: &[u8], len: u32) -> Opened {
        let mut reader = Reader::new(body);
        let complete = body.len() >= len as usize;
        let mut envelope = Envelope {
            header: Header::NONE,
            pass_through: false,
            fragment: None,
            complete,
            last_try: complete || body.len() >= MAX_HEAD,
            frame_len: len,
        };
        let tags = reader.array::<2>("tags").unwrap_or_default();
        match tags {
            [131, 68] => {}
            [131, 69] => match (reader.u64("sequence id"), reader.u64("fragment id")) {
                (Ok(id), Ok(number)) => self.first_fragment(cx, &mut envelope, id, number),
                _ => return self.bad_header(cx, reader.malformed("fragment header", Fault::Truncated)),
            },
            [131, 70] => return self.fragment(cx, reader),
            [112, 131] => envelope.pass_through = true,
            [131, 80] => return Opened::Astray("compressed term in the place of a distribution header"),
            [131, _] => return Opened::Astray("frame without distribution header"),
            _ => return Opened::Astray("frame that begins with no known tag"),
        }
        let other = if envelope.pass_through { Framing::Header } else { Framing::PassThrough };
        if cx.framing() == other && self.strict() {
            cx.violation(if envelope.pass_through {
                "pass-through frame on a connection with distribution headers"
            } else {
                "distribution header on a connection without"
            });
        }
        if !envelope.pass_through {
            match Header::decode(&mut reader) {
                Ok(header) => envelope.header = header,
                Err(error) if error.fault == Fault::Truncated && !envelope.last_try => return Opened::More,
                Err(error) => return self.bad_header(cx, error),
            }
        }
        self.message(cx, reader, &envelope)
    }

    /// A header that cannot be read: what it would have set is unknown from here on.
    fn bad_header<O: Output>(&mut self, cx: &mut Context<'_, O>, error: Malformed) -> Opened {
        cx.broken(self.strict(), "dist", error);
        self.frames_missing();
        Opened::Open(Box::new(Active::lost()))
    }

    fn first_fragment<O: Output>(
        &mut self,
        cx: &mut Context<'_, O>,
        envelope: &mut Envelope<'_>,
        id: u64,
        number: u64,
    ) {
        if number == 0 && self.strict() {
            cx.violation("fragment number 0");
        }
        // sequence id 0 is nobody's: receivers take such a frame for a whole message
        if id == 0 || number <= 1 {
            return;
        }
        if self.sequences.take(id).is_some() {
            cx.violation("fragmented message begun again before its end");
        }
        envelope.fragment = Some((id, number));
    }

    fn fragment<O: Output>(&mut self, cx: &mut Context<'_, O>, mut reader: Reader<'_>) -> Opened {
        let (Ok(id), Ok(number)) = (reader.u64("sequence id"), reader.u64("fragment id")) else {
            return self.bad_header(cx, reader.malformed("fragment header", Fault::Truncated));
        };
        let Some(sequence) = self.sequences.take(id) else {
            if self.whole && !self.orphans {
                cx.violation("fragment of no open sequence");
            }
            return Opened::Open(Box::new(Active::lost()));
        };
        if sequence.next != number {
            cx.violation("fragment out of order");
            self.orphans = true;
            return Opened::Open(Box::new(Active::lost()));
        }
        let mut walk = sequence.walk;
        if let Err(error) = walk.feed(reader.rest()) {
            cx.broken(self.strict(), "etf", error);
        }
        Opened::Open(Box::new(Active { walk, goes_on: (number > 1).then(|| (id, number - 1)) }))
    }

    /// A message; what its header sets is set after it was read, once.
    #[inline]
    fn message<O: Output>(&mut self, cx: &mut Context<'_, O>, start: Reader<'_>, envelope: &Envelope<'_>) -> Opened {
        let opened = self.read(cx, start, envelope);
        if envelope.header.sets && !matches!(opened, Opened::More) {
            envelope.header.apply(&mut self.cache);
        }
        opened
    }

    fn read<O: Output>(&mut self, cx: &mut Context<'_, O>, start: Reader<'_>, envelope: &Envelope<'_>) -> Opened {
        let Self { cache, fingerprint, whole, mid_stream, .. } = self;
        let strict = *whole || self.good >= TRUSTED_AFTER;
        let depth = cx.bounds.term_depth;
        let header = envelope.header;
        let mut table = AtomTable::new();
        let unknown = if header.is_empty() { Unknown::default() } else { header.resolve(cache, &mut table) };

        let mut at = cursor(start, &table, envelope.complete);
        let control = Control::open(at);
        let walked = control.and_then(|control| control.skip(&mut at, depth).map(|()| control));
        let (control, cut) = match walked {
            Ok(_) if envelope.wants_more(at.reader.len()) => return Opened::More,
            Ok(control) => (control, false),
            Err(error) if error.fault == Fault::Truncated && !envelope.last_try => return Opened::More,
            // only its start is kept, but that much can be said
            Err(error) if error.fault == Fault::Truncated && !envelope.complete && control.is_ok() => {
                (control.unwrap_or(Control::NOTHING), true)
            }
            Err(error) => {
                cx.broken(strict, "dist", Malformed { what: "control message", ..error });
                return Opened::Open(Box::new(Active { walk: Walk::lost(), goes_on: envelope.goes_on() }));
            }
        };
        let control_len = if cut { start.len() } else { start.len() - at.reader.len() };

        if header.sets {
            fingerprint.observe(header, cx.release());
        }
        if unknown.any {
            fingerprint.expect(control, Cursor::cut(after(start, control.elements_at), &table), cx.release());
            if let Some(build) = fingerprint.build() {
                infer(&mut table, cache, build, *mid_stream);
                disown_nodes(start, &mut table);
            }
        }
        if let (Some(slot), true) = (unknown.empty, *whole) {
            cx.violation(&format!("reference to atom cache slot {slot}, which was never set"));
        }

        let atoms = table.as_slice();
        let payload = after(start, control_len);
        let row = control.operation.row();
        let has_payload = row.map_or(!payload.is_empty(), |row| row.payload);
        let known = row.is_some_and(|row| row.takes(control.arity));
        let terms = Terms {
            count: u8::from(cut) + u8::from(has_payload),
            pass_through: envelope.pass_through,
            version_read: cut,
            depth,
            atoms: atoms.len(),
        };
        let mut version = payload;
        let in_version = !envelope.pass_through || version.u8("version byte") == Ok(131);
        let term = if envelope.pass_through && in_version { version } else { payload };
        let single = envelope.complete && envelope.fragment.is_none();
        let at_payload = cursor(term, atoms, single);
        if known || row.is_none() {
            cx.out.message(&Message {
                at: *cx.at,
                side: cx.side,
                operation: control.operation,
                control: cursor(after(start, control.elements_at), atoms, envelope.complete),
                arity: control.arity,
                payload: (has_payload && in_version && !cut).then_some(at_payload),
                frame_len: envelope.frame_len,
            });
        }
        if !known && strict {
            cx.violation(&control.oddity());
        }

        let (result, opened) = if single && in_version {
            let mut at = at_payload;
            let result = if has_payload { at.skip(depth) } else { Ok(()) };
            if result.is_ok() && !at.reader.is_empty() {
                cx.trailing(at.reader.len() as u64);
            }
            (result, Opened::Done)
        } else {
            let mut walk = Walk::new(terms);
            let from = if cut { start } else { payload };
            let result = walk.feed(from.rest());
            (result, Opened::Open(Box::new(Active { walk, goes_on: envelope.goes_on() })))
        };
        match result {
            Ok(()) => self.good = self.good.saturating_add(1),
            Err(error) => cx.broken(strict, "etf", error),
        }
        opened
    }
}

impl Envelope<'_> {
    /// Whether a longer start of the frame should be waited for, to have some of the payload.
    const fn wants_more(&self, payload: usize) -> bool {
        !self.last_try && payload < PAYLOAD
    }

    /// What a first fragment is followed by.
    const fn goes_on(&self) -> Option<(u64, u64)> {
        match self.fragment {
            Some((id, number)) => Some((id, number - 1)),
            None => None,
        }
    }
}

/// What is left after so many octets that were read before.
#[inline]
fn after(mut reader: Reader<'_>, octets: usize) -> Reader<'_> {
    let _ = reader.bytes("control message", octets);
    reader
}

/// A cursor that takes the end of the bytes for the end of the term only where it is.
#[inline]
fn cursor<'t>(reader: Reader<'t>, table: &'t [Atom<'t>], to_the_end: bool) -> Cursor<'t> {
    if to_the_end { Cursor::new(reader, table) } else { Cursor::cut(reader, table) }
}

/// Puts the atoms of a build in the place of what is not known. A stale entry must say the same; an empty one counts only
/// where the start was not seen, for what a gap holds is as likely an atom of the application.
fn infer<'t>(table: &mut AtomTable<'t>, cache: &'t AtomCache, build: Build, mid_stream: bool) {
    for atom in table.iter_mut().filter(|atom| atom.text.is_none()) {
        let Some(slot) = atom.slot else { continue };
        let Some(text) = build.atom(slot) else { continue };
        let likely = match cache.get(slot) {
            Slot::Empty => mid_stream,
            Slot::Stale(stale) => stale == text,
            Slot::Known(_) => false,
        };
        if likely {
            atom.text = Some(text);
            atom.inferred = true;
        }
    }
}

/// Takes an inferred atom back that stands where a node's name must: no atom of the tables is one.
fn disown_nodes(start: Reader<'_>, table: &mut AtomTable<'_>) {
    let mut disowned: [Option<u16>; 4] = [None; 4];
    {
        let mut cursor = Cursor::cut(start, table);
        let nodes = std::iter::from_fn(|| cursor.token().ok()).take(MAX_TOKENS).filter_map(|token| match token {
            Token::Pid(pid) => Some(pid.node),
            Token::Reference(reference) => Some(reference.node),
            _ => None,
        });
        let wrong = nodes.filter(|node| node.inferred).filter_map(|node| node.slot);
        for (place, slot) in disowned.iter_mut().zip(wrong) {
            *place = Some(slot);
        }
    }
    for atom in table.iter_mut().filter(|atom| atom.inferred && disowned.contains(&atom.slot)) {
        atom.text = None;
        atom.inferred = false;
    }
}

/// Tokens of a control message that are looked through for node names.
const MAX_TOKENS: usize = 64;

#[cfg(test)]
mod tests {
    use std::mem::discriminant;

    use proptest::prelude::*;

    use super::super::handshake::{Facts, Handshake};
    use super::super::{Bounds, Output};
    use super::*;
    use crate::captured;
    use crate::packet::{At, Side};

    /// All that is said, in words.
    #[derive(Default)]
    struct Said(Vec<String>);

    impl Output for Said {
        fn handshake_progress(&mut self, _: &At, _: Side, facts: &Facts) {
            self.0.push(format!("{facts:?}"));
        }
        fn message(&mut self, message: &Message<'_>) {
            self.0.push(format!("{message:?}"));
        }
        fn tick(&mut self, _: &At, _: Side) {}
        fn violation(&mut self, _: &At, _: Side, what: String) {
            self.0.push(what);
        }
        fn undecodable(&mut self, _: &At, _: Side, layer: &'static str, what: String) {
            self.0.push(format!("{layer}: {what}"));
        }
        fn weird(&mut self, _: &At, _: Side, name: &'static str, detail: String) {
            self.0.push(format!("{name}: {detail}"));
        }
        fn limit(&mut self, name: &'static str) {
            self.0.push(name.to_owned());
        }
    }

    /// The frames of a recorded node, behind its handshake messages, whose lengths have two octets.
    fn frames() -> Vec<Vec<u8>> {
        let connections = captured::connections("apps-otp25.pcap");
        let octets = connections.iter().map(|one| one.octets(Side::Initiator)).max_by_key(Vec::len).unwrap();
        let mut rest = &octets[..];
        while rest[0] != 0 || rest[1] != 0 {
            rest = &rest[2 + usize::from(u16::from_be_bytes([rest[0], rest[1]]))..];
        }
        let mut frames = Vec::new();
        while let Some((len, behind)) = rest.split_first_chunk::<4>() {
            let (frame, behind) = behind.split_at((u32::from_be_bytes(*len) as usize).min(behind.len()));
            rest = behind;
            if !frame.is_empty() {
                frames.push(frame.to_vec());
            }
        }
        frames
    }

    /// One direction of a connection, and how much it read the short way.
    #[derive(Default)]
    struct Bench {
        decoder: Decoder,
        handshake: Handshake,
        said: Said,
        plain: usize,
    }

    impl Bench {
        fn take(&mut self, frame: &[u8], short_way: bool) -> Opened {
            let mut cx = Context {
                at: &At::default(),
                side: Side::Initiator,
                handshake: &mut self.handshake,
                bounds: Bounds { open_fragments: 4, term_depth: 64 },
                frames_may_follow: false,
                out: &mut self.said,
            };
            if short_way && self.decoder.take_plain(&mut cx, frame) {
                self.plain += 1;
                return Opened::Done;
            }
            self.decoder.open(&mut cx, frame, frame.len() as u32)
        }
    }

    #[test]
    fn most_frames_go_the_short_way_even_of_a_young_node() {
        let (frames, mut bench) = (frames(), Bench::default());
        frames.iter().for_each(|frame| _ = bench.take(frame, true));
        assert!(frames.len() > 100 && bench.plain * 2 > frames.len(), "{} of {}", bench.plain, frames.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn both_ways_say_the_same_of_any_frame(
            damage in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..80, any::<u8>()), 0..40),
            gap in prop::option::of(any::<prop::sample::Index>()),
            whole in any::<bool>(),
        ) {
            let mut frames = frames();
            let gap = gap.map(|gap| gap.index(frames.len()));
            for (place, at, value) in damage {
                let place = place.index(frames.len());
                if let Some(octet) = frames[place].get_mut(at) {
                    *octet = value;
                }
            }
            let (mut short, mut long) = (Bench::default(), Bench::default());
            (short.decoder.whole, long.decoder.whole) = (whole, whole);
            // Twice as many as there are votes, so that the end of the vote is behind them too.
            for (place, frame) in frames.iter().cycle().take(1500.max(frames.len())).enumerate() {
                if gap == Some(place) {
                    short.decoder.frames_missing();
                    long.decoder.frames_missing();
                }
                let opened = [short.take(frame, true), long.take(frame, false)];
                prop_assert!(discriminant(&opened[0]) == discriminant(&opened[1]));
                prop_assert_eq!(&short.said.0, &long.said.0);
                prop_assert_eq!(short.decoder.good, long.decoder.good);
                short.said.0.clear();
                long.said.0.clear();
            }
        }
    }
}
