//! Octets that are remembered by where they lie, as long as the block of packets that holds them is there.
//!
//! To compare retransmissions with what was delivered, the last octets of each direction have to be kept. Copying them
//! from every packet is a tenth of the work of a capture file's analysis, and nearly all of the copies are overwritten
//! before anybody looks. A file's packets come in blocks that stay until their last packet was taken in, so until then it
//! is enough to know where the octets are; of a block that goes, only the last ones of each direction are copied.

/// No piece.
pub(super) const NONE: u32 = u32::MAX;

/// Some octets in the block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    start: u32,
    len: u32,
    /// The piece before it in the same direction's stream.
    pub(super) before: u32,
}

/// The pieces of all directions in one block, as many as it has packets at most; which belong together, the directions
/// know.
#[derive(Debug, Default)]
pub(super) struct Pieces(Vec<Piece>);

impl Pieces {
    /// The block has gone.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }
}

/// A block, and the pieces of it that are remembered.
#[derive(Debug)]
pub(super) struct Lent<'a> {
    block: &'a [u8],
    pieces: &'a mut Pieces,
}

impl<'a> Lent<'a> {
    /// Pieces of this block, which is empty where packets come by themselves and go at once.
    pub(super) const fn new(block: &'a [u8], pieces: &'a mut Pieces) -> Self {
        Self { block, pieces }
    }

    /// The same for a shorter time.
    #[inline]
    pub(super) const fn again(&mut self) -> Lent<'_> {
        Lent { block: self.block, pieces: self.pieces }
    }

    /// The piece that these octets are, if they lie in the block.
    #[inline]
    pub(super) fn piece(&self, octets: &[u8], before: u32) -> Option<Piece> {
        let start = octets.as_ptr().addr().wrapping_sub(self.block.as_ptr().addr());
        if start.checked_add(octets.len())? > self.block.len() {
            return None;
        }
        Some(Piece { start: u32::try_from(start).ok()?, len: u32::try_from(octets.len()).ok()?, before })
    }

    /// Remembers a piece, and says by what.
    #[inline]
    pub(super) fn remember(&mut self, piece: Piece) -> u32 {
        let index = self.pieces.0.len() as u32;
        self.pieces.0.push(piece);
        index
    }

    /// What is remembered by this index: the octets, and the piece before them.
    pub(super) fn recall(&self, index: u32) -> Option<(&'a [u8], u32)> {
        let piece = self.pieces.0.get(index as usize)?;
        let start = piece.start as usize;
        Some((self.block.get(start..start + piece.len as usize)?, piece.before))
    }
}
