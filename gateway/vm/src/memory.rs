//! Checked access to guest memory: the only place where a guest's pointer becomes a place.
//!
//! **Invariant:** an address and a length that do not lie inside memory are `InvalidMemoryAccess`, whatever they add up to; no
//! sum here can wrap, since a `usize` is wider than the guest's 32 bits.

use portcullis_abi::Status;

const _: () = assert!(usize::BITS >= 64, "guest addresses are added without wrapping");

/// `len` bytes at `address`.
pub(crate) fn read(memory: &[u8], address: u32, len: u32) -> Result<&[u8], Status> {
    let start = address as usize;
    memory.get(start..start + len as usize).ok_or(Status::InvalidMemoryAccess)
}

/// `len` bytes at `address`, to be written.
pub(crate) fn write(memory: &mut [u8], address: u32, len: u32) -> Result<&mut [u8], Status> {
    let start = address as usize;
    memory.get_mut(start..start + len as usize).ok_or(Status::InvalidMemoryAccess)
}

/// Writes `bytes` at `address`.
pub(crate) fn put<const N: usize>(memory: &mut [u8], address: u32, bytes: [u8; N]) -> Result<(), Status> {
    let start = address as usize;
    let place = memory.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<N>);
    *place.ok_or(Status::InvalidMemoryAccess)? = bytes;
    Ok(())
}

/// The little-endian number at `address`.
pub(crate) fn number(memory: &[u8], address: u32) -> Result<u32, Status> {
    let bytes = memory.get(address as usize..).and_then(<[u8]>::first_chunk::<4>);
    bytes.map(|bytes| u32::from_le_bytes(*bytes)).ok_or(Status::InvalidMemoryAccess)
}

/// A block being filled from the front.
pub(crate) struct Block<'a>(pub(crate) &'a mut [u8]);

impl Block<'_> {
    /// Appends `bytes`, as far as they fit.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = std::mem::take(&mut self.0);
        let (now, later) = room.split_at_mut(bytes.len().min(room.len()));
        now.copy_from_slice(bytes.get(..now.len()).unwrap_or_default());
        self.0 = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_lie_inside_memory_is_refused() {
        let mut memory = [7_u8; 16];
        for (address, len, inside) in [
            (0, 0, true),
            (0, 16, true),
            (16, 0, true),
            (12, 4, true),
            (13, 4, false),
            (16, 1, false),
            (17, 0, false),
            (u32::MAX, 1, false),
            (1, u32::MAX, false),
            (u32::MAX, u32::MAX, false),
        ] {
            assert_eq!(read(&memory, address, len).is_ok(), inside, "{address}+{len}");
            assert_eq!(write(&mut memory, address, len).is_ok(), inside, "{address}+{len}");
        }
        for (address, inside) in [(12, true), (13, false), (u32::MAX, false)] {
            assert_eq!(put(&mut memory, address, [1; 4]).is_ok(), inside, "{address}");
            assert_eq!(number(&memory, address).is_ok(), inside, "{address}");
        }
    }

    #[test]
    fn a_block_takes_no_more_than_it_has_room_for() {
        let mut bytes = [0_u8; 5];
        let mut block = Block(&mut bytes);
        block.push(b"abc");
        block.push(b"def");
        block.push(b"g");
        assert_eq!(&bytes, b"abcde");
    }
}
