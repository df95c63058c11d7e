//! The archive form of a module: `plugin.wasm` in a compressed tar, as container tools build it.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

/// The file that has the module (Wasm Image Specification, variant *compat*).
const FILE: &str = "plugin.wasm";
/// The unit of an archive.
const BLOCK: usize = 512;

/// The module in a layer, or a clause that says why there is none. Nothing larger than `most` is unpacked.
pub(super) fn module(layer: &[u8], most: usize) -> Result<Bytes, String> {
    // What else an archive of one module holds is small.
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1 << 20);
    let mut archive = Vec::new();
    let unpacked = MultiGzDecoder::new(layer).take(limit).read_to_end(&mut archive);
    unpacked.map_err(|error| format!("its layer cannot be unpacked: {error}"))?;
    if archive.len() as u64 == limit {
        return Err(format!("its layer unpacks to more than {most} bytes"));
    }
    let archive = Bytes::from(archive);
    let mut at = 0;
    while let Some(header) = archive.get(at..at + BLOCK).filter(|header| header.iter().any(|byte| *byte != 0)) {
        let size = size(header).ok_or("its layer is no archive")?;
        let (begin, end) = (at + BLOCK, at.saturating_add(BLOCK).saturating_add(size));
        if is_the_file(header) {
            return if end <= archive.len() {
                Ok(archive.slice(begin..end))
            } else {
                Err("its layer is cut off".to_owned())
            };
        }
        at = begin.saturating_add(size.next_multiple_of(BLOCK));
    }
    Err(format!("its layer has no file `{FILE}`"))
}

/// Whether a header (POSIX.1-1988 `ustar`) is that of the module: an ordinary file of this name, in whatever directory.
fn is_the_file(header: &[u8]) -> bool {
    let (name, kind) = (header.get(..100).unwrap_or_default(), header.get(156));
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    last == FILE.as_bytes() && matches!(kind, Some(b'0' | 0))
}

/// The size of an entry, in octal digits; archives with larger ones than those can say are larger than any module.
fn size(header: &[u8]) -> Option<usize> {
    let field = std::str::from_utf8(header.get(124..136)?).ok()?;
    usize::from_str_radix(field.trim_matches(['\0', ' ']), 8).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn entry(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut header = vec![0; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = kind;
        let padding = content.len().next_multiple_of(BLOCK) - content.len();
        [header, content.to_vec(), vec![0; padding]].concat()
    }

    fn compressed(archive: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(archive).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn the_module_is_found_among_other_files() {
        let end = vec![0; 2 * BLOCK];
        let archive = [
            entry("./", b'5', b""),
            entry("runtime-config.json", b'0', &[b'x'; 700]),
            entry("./plugin.wasm", b'0', b"\0asm"),
            end,
        ];
        assert_eq!(module(&compressed(&archive.concat()), 1 << 10).unwrap(), &b"\0asm"[..]);
    }

    #[test]
    fn what_has_none_is_refused_with_a_reason() {
        let link = entry("plugin.wasm", b'2', b"");
        let mut cut = entry("plugin.wasm", b'0', &[0; 600]);
        cut.truncate(700);
        for (layer, why) in [
            (compressed(&link), "its layer has no file `plugin.wasm`"),
            (compressed(&cut), "its layer is cut off"),
            (compressed(&[b'x'; 600]), "its layer is no archive"),
            (compressed(&vec![0; 3 << 20]), "its layer unpacks to more than 1024 bytes"),
            (b"neither a gzip nor a tar".to_vec(), "its layer cannot be unpacked: invalid gzip header"),
        ] {
            assert_eq!(module(&layer, 1 << 10).unwrap_err(), why);
        }
    }
}
