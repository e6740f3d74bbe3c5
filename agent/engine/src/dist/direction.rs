//! One direction of a connection: where its messages and frames begin and end.
//!
//! A frame that lies whole in the octets at hand is read where it is. Of any other only the head is gathered, and the rest
//! is walked as it comes, so a message of any size takes the same memory.

use super::fingerprint::BuildGuess;
use super::handshake::{MAX_MESSAGE, Next, Refusal};
use super::message::{Active, Decoder, FRAGMENT_HEAD, HEAD, MAX_HEAD, Opened};
use super::resync::{self, Found};
use super::{Context, Output};

/// The length from which on a receiver closes the connection (`docs/protocol.md` §4.1).
const IMPOSSIBLE: u32 = 0x7fff_ffff;

/// What comes next in a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A handshake message with a length of 16 bits.
    Handshake,
    /// A frame's length.
    Length,
    /// The start of a frame, until it can be read.
    Head,
    /// The rest of a frame.
    Rest,
    /// The beginning of some frame is searched.
    Search,
    /// Nothing that could be read.
    Deaf,
}

/// The state of one direction.
pub(super) struct Direction {
    stage: Stage,
    /// The beginning of what is not complete: a handshake message, a length, a head, or what is searched.
    buffer: Vec<u8>,
    /// Octets at the start of the search buffer in which nothing begins.
    passed: usize,
    /// Octets of the head, or of the search buffer, with which it is worth looking again.
    need: usize,
    frame_len: u32,
    /// Octets of the frame that are still to come.
    rest: u64,
    /// The frame whose rest is to come.
    active: Option<Box<Active>>,
    /// Octets in which no frame has been found so far; `None` where the search is that of a start in the middle.
    searched: Option<u64>,
    /// It begins in the middle.
    mid_stream: bool,
    /// Made for the first frame that is not empty, or the first octets that are missing: many connections only tick.
    decoder: Option<Box<Decoder>>,
    pub(super) octets: u64,
    pub(super) handshake_messages: u64,
    pub(super) frames: u64,
    pub(super) ticks: u64,
}

impl Direction {
    fn new(stage: Stage, mid_stream: bool) -> Self {
        Self {
            stage,
            buffer: Vec::new(),
            passed: 0,
            need: 0,
            frame_len: 0,
            rest: 0,
            active: None,
            searched: None,
            mid_stream,
            decoder: None,
            octets: 0,
            handshake_messages: 0,
            frames: 0,
            ticks: 0,
        }
    }

    pub(super) fn from_handshake() -> Self {
        Self::new(Stage::Handshake, false)
    }

    pub(super) fn mid_stream() -> Self {
        Self::new(Stage::Search, true)
    }

    pub(super) fn memory(&self) -> usize {
        let active = self.active.as_ref().map_or(0, |active| size_of::<Active>() + active.walk.memory());
        let decoder = self.decoder.as_deref().map_or(0, |decoder| {
            size_of::<Decoder>() + decoder.cache.memory() + decoder.sequences.memory() + decoder.fingerprint.memory()
        });
        self.buffer.capacity() + active + decoder
    }

    #[inline]
    fn decoder(&mut self) -> &mut Decoder {
        let mid_stream = self.mid_stream;
        self.decoder.get_or_insert_with(|| Box::new(Decoder::new(mid_stream)))
    }

    /// The start was seen, and no octet is missing since.
    pub(super) fn is_whole(&self) -> bool {
        self.decoder.as_deref().map_or(!self.mid_stream, |decoder| decoder.whole)
    }

    /// The sender's build, by its atom cache.
    pub(super) fn build_guess(&self) -> Option<BuildGuess> {
        self.decoder.as_deref().and_then(|decoder| decoder.fingerprint.guess())
    }

    /// Whether something odd is the peer's doing.
    fn is_strict(&self) -> bool {
        self.decoder.as_deref().map_or(!self.mid_stream, Decoder::strict)
    }

    pub(super) fn data<O: Output>(&mut self, cx: &mut Context<'_, O>, data: &[u8]) {
        self.octets += data.len() as u64;
        self.take(cx, data);
    }

    fn take<O: Output>(&mut self, cx: &mut Context<'_, O>, mut data: &[u8]) {
        while !data.is_empty() {
            if self.stage == Stage::Search && !self.buffer.is_empty() {
                return self.take_joined(cx, data);
            }
            data = match self.stage {
                Stage::Handshake => self.handshake(cx, data),
                Stage::Length => self.frames(cx, data),
                Stage::Head => self.head(cx, data),
                Stage::Rest => self.rest(cx, data),
                Stage::Search => self.search(cx, data),
                Stage::Deaf => &[],
            };
        }
    }

    /// Goes on searching in what was kept and what is new. It does not nest: what it calls finds all octets in one slice,
    /// and so never leaves anything in the buffer before the slice is used up.
    fn take_joined<O: Output>(&mut self, cx: &mut Context<'_, O>, data: &[u8]) {
        self.buffer.extend_from_slice(data);
        let kept = self.buffer.get(self.passed..).unwrap_or_default();
        if kept.len() < self.need {
            return;
        }
        match resync::find(kept, cx.framing()) {
            Found::At(_) => {
                let joined = std::mem::take(&mut self.buffer);
                let passed = std::mem::take(&mut self.passed);
                self.take(cx, joined.get(passed..).unwrap_or_default());
            }
            Found::Pending { from, need } => {
                self.searched = self.searched.map(|searched| searched.saturating_add(from as u64));
                self.need = need;
                self.passed += from;
                // moved up only when that frees more than it moves, so that small pieces cost no more than large ones
                if self.passed > self.buffer.len() / 2 {
                    self.buffer.drain(..self.passed);
                    self.passed = 0;
                }
            }
        }
    }

    fn handshake<'d, O: Output>(&mut self, cx: &mut Context<'_, O>, data: &'d [u8]) -> &'d [u8] {
        if self.buffer.is_empty()
            && let Some((length, rest)) = data.split_first_chunk::<2>()
            && let Some((body, rest)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
            && body.len() <= MAX_MESSAGE
        {
            self.handshake_message(cx, body);
            return rest;
        }
        // one more octet or what the length says, whichever is next
        let wanted = match self.buffer.first_chunk::<2>() {
            None => 2,
            Some(length) => 2 + usize::from(u16::from_be_bytes(*length)),
        };
        let (taken, rest) = data.split_at(data.len().min(wanted - self.buffer.len()));
        self.buffer.extend_from_slice(taken);
        if let Some((length, body)) = self.buffer.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            if let Err(refusal) = cx.handshake.check_start(cx.side, length, body.first().copied()) {
                self.refuse(cx, refusal);
                return &[];
            }
            if body.len() >= length {
                let message = std::mem::take(&mut self.buffer);
                self.handshake_message(cx, message.get(2..).unwrap_or_default());
            }
        }
        rest
    }

    fn handshake_message<O: Output>(&mut self, cx: &mut Context<'_, O>, body: &[u8]) {
        match cx.handshake.message(cx.side, body) {
            Ok(next) => {
                self.handshake_messages += 1;
                if next == Next::Frames {
                    self.stage = Stage::Length;
                }
                cx.out.handshake_progress(cx.at, cx.side, &cx.handshake.facts);
            }
            Err(refusal) => self.refuse(cx, refusal),
        }
    }

    fn refuse<O: Output>(&mut self, cx: &mut Context<'_, O>, refusal: Refusal) {
        self.stage = Stage::Deaf;
        self.buffer = Vec::new();
        match refusal {
            Refusal::Foreign => {
                cx.foreign();
                cx.out.undecodable(cx.at, cx.side, "handshake", "octets that are not the protocol".into());
            }
            Refusal::Violation(what) => {
                cx.out.undecodable(cx.at, cx.side, "handshake", what.clone());
                cx.out.violation(cx.at, cx.side, what);
            }
        }
    }

    /// Frames, as long as they lie whole in the octets.
    fn frames<'d, O: Output>(&mut self, cx: &mut Context<'_, O>, mut data: &'d [u8]) -> &'d [u8] {
        while self.stage == Stage::Length {
            let length = if let (true, Some((length, rest))) = (self.buffer.is_empty(), data.split_first_chunk::<4>()) {
                data = rest;
                u32::from_be_bytes(*length)
            } else {
                let (taken, rest) = data.split_at(data.len().min(4 - self.buffer.len()));
                self.buffer.extend_from_slice(taken);
                data = rest;
                let Some(length) = self.buffer.first_chunk::<4>() else {
                    return data;
                };
                let length = u32::from_be_bytes(*length);
                self.buffer.clear();
                length
            };
            if length >= IMPOSSIBLE {
                cx.broken(self.is_strict(), "dist", format_args!("frame of {length} octets"));
                self.lose_boundary();
                return data;
            }
            self.frames += 1;
            if cx.frames_may_follow {
                cx.frames_follow();
            }
            if length == 0 {
                self.ticks += 1;
                cx.out.tick(cx.at, cx.side);
                continue;
            }
            if length as usize <= HEAD
                && let Some((frame, behind)) = data.split_at_checked(length as usize)
                && self.decoder().take_plain(cx, frame)
            {
                data = behind;
                continue;
            }
            self.frame_len = length;
            self.need = HEAD.min(length as usize);
            self.rest = length.into();
            self.stage = Stage::Head;
            data = self.head(cx, data);
        }
        data
    }

    fn head<'d, O: Output>(&mut self, cx: &mut Context<'_, O>, data: &'d [u8]) -> &'d [u8] {
        let mut opened = Opened::More;
        let mut rest = data;
        if self.buffer.is_empty() {
            // nothing was kept: read it in place
            if data.starts_with(&[131, 70]) {
                self.need = FRAGMENT_HEAD.min(self.frame_len as usize);
            }
            while let (Opened::More, Some((head, after))) = (&opened, data.split_at_checked(self.need)) {
                let length = self.frame_len;
                opened = self.decoder().open(cx, head, length);
                rest = after;
                self.grow(&opened);
            }
            if let Opened::Astray(_) = opened {
                // the frame's start is searched too
                rest = data;
            }
        }
        if let Opened::More = opened {
            let wanted = self.need.saturating_sub(self.buffer.len());
            let (taken, after) = data.split_at(data.len().min(wanted));
            self.buffer.extend_from_slice(taken);
            if self.buffer.len() < self.need {
                return after;
            }
            rest = after;
            let head = std::mem::take(&mut self.buffer);
            let length = self.frame_len;
            let is_plain = head.len() == length as usize && self.decoder().take_plain(cx, &head);
            opened = if is_plain { Opened::Done } else { self.decoder().open(cx, &head, length) };
            self.grow(&opened);
            self.buffer = head;
            match opened {
                Opened::More | Opened::Astray(_) => {}
                _ => self.clear_buffer(),
            }
        }
        match opened {
            Opened::More => {}
            Opened::Astray(what) => {
                cx.broken(self.is_strict(), "dist", what);
                self.lose_boundary_here();
            }
            Opened::Done => {
                self.rest = 0;
                self.stage = Stage::Length;
            }
            Opened::Open(active) => {
                self.active = Some(active);
                self.rest = self.rest.saturating_sub(self.need as u64);
                self.stage = Stage::Rest;
                if self.rest == 0 {
                    self.end_frame(cx);
                }
            }
        }
        rest
    }

    /// The next try is made with twice as much.
    fn grow(&mut self, opened: &Opened) {
        if let Opened::More = opened {
            self.need = (self.need * 2).min(MAX_HEAD).min(self.frame_len as usize);
        }
    }

    /// Keeps the buffer for the next head, unless a large one has made it large.
    fn clear_buffer(&mut self) {
        if self.buffer.capacity() > 2 * HEAD {
            self.buffer = Vec::new();
        } else {
            self.buffer.clear();
        }
    }

    fn rest<'d, O: Output>(&mut self, cx: &mut Context<'_, O>, data: &'d [u8]) -> &'d [u8] {
        let len = usize::try_from(self.rest).unwrap_or(usize::MAX).min(data.len());
        let (taken, after) = data.split_at(len);
        if let Some(Err(error)) = self.active.as_mut().map(|active| active.walk.feed(taken)) {
            cx.broken(self.is_strict(), "etf", error);
        }
        self.rest -= len as u64;
        if self.rest == 0 {
            self.end_frame(cx);
        }
        after
    }

    fn end_frame<O: Output>(&mut self, cx: &mut Context<'_, O>) {
        self.stage = Stage::Length;
        let Some(Active { walk, goes_on }) = self.active.take().map(|active| *active) else {
            return;
        };
        if let Some((id, next)) = goes_on {
            let decoder = self.decoder();
            if decoder.sequences.put(id, next, walk, cx.bounds.open_fragments) {
                decoder.orphans = true;
                cx.out.limit("open_fragments");
            }
            return;
        }
        match walk.finish() {
            Ok(()) if walk.trailing > 0 => cx.trailing(walk.trailing),
            Ok(()) => {}
            Err(error) => cx.broken(self.is_strict(), "etf", error),
        }
    }

    fn search<'d, O: Output>(&mut self, cx: &mut Context<'_, O>, data: &'d [u8]) -> &'d [u8] {
        match resync::find(data, cx.framing()) {
            Found::At(place) => {
                self.stage = Stage::Length;
                if let Some(searched) = self.searched.take() {
                    let searched = searched.saturating_add(place as u64);
                    cx.out.weird(
                        cx.at,
                        cx.side,
                        "resynchronised",
                        format!("a frame begins again after {searched} octets"),
                    );
                }
                data.get(place..).unwrap_or_default()
            }
            Found::Pending { from, need } => {
                self.searched = self.searched.map(|searched| searched.saturating_add(from as u64));
                self.need = need;
                self.buffer.extend_from_slice(data.get(from..).unwrap_or_default());
                &[]
            }
        }
    }

    /// The boundary is lost; what follows is searched.
    fn lose_boundary(&mut self) {
        self.buffer.clear();
        self.lose_boundary_here();
    }

    /// The boundary is lost; the buffer and what follows are searched.
    fn lose_boundary_here(&mut self) {
        self.stage = Stage::Search;
        self.passed = 0;
        self.need = 0;
        self.rest = 0;
        self.active = None;
        self.searched = Some(0);
        self.decoder().frames_missing();
    }

    /// So many octets were never captured.
    pub(super) fn gap<O: Output>(&mut self, cx: &mut Context<'_, O>, octets: u64) {
        if octets == 0 {
            return;
        }
        match self.stage {
            Stage::Deaf => self.decoder().octets_missing(),
            Stage::Search => {
                self.buffer.clear();
                self.passed = 0;
                self.need = 0;
                self.decoder().frames_missing();
            }
            Stage::Head if octets <= self.rest - (self.buffer.len() as u64).min(self.rest) => {
                // what the header would have set, or which sequence goes on, is not known
                self.rest -= self.buffer.len() as u64;
                self.clear_buffer();
                self.active = Some(Box::new(Active::lost()));
                self.decoder().frames_missing();
                self.damage(cx, octets);
            }
            Stage::Rest if octets <= self.rest => {
                if let Some(active) = &mut self.active {
                    active.walk = super::walk::Walk::lost();
                }
                self.decoder().octets_missing();
                self.damage(cx, octets);
            }
            Stage::Head | Stage::Rest => {
                cx.out.undecodable(cx.at, cx.side, "dist", "the end of a frame is missing".into());
                self.lose_boundary();
            }
            Stage::Handshake | Stage::Length => self.lose_boundary(),
        }
    }

    /// Octets inside the frame are missing; where it ends is known.
    fn damage<O: Output>(&mut self, cx: &mut Context<'_, O>, octets: u64) {
        cx.out.undecodable(cx.at, cx.side, "dist", format!("{octets} octets inside a frame are missing"));
        self.stage = Stage::Rest;
        self.rest = self.rest.saturating_sub(octets);
        if self.rest == 0 {
            self.end_frame(cx);
        }
    }

    /// Nothing follows: what is searched may end with a frame that nothing can confirm any more.
    pub(super) fn close<O: Output>(&mut self, cx: &mut Context<'_, O>) {
        let last = std::mem::take(&mut self.buffer);
        let last = last.get(self.passed..).unwrap_or_default();
        if self.stage == Stage::Search && resync::is_last(last, cx.framing()) {
            self.stage = Stage::Length;
            self.take(cx, last);
        }
        self.buffer = Vec::new();
    }
}
