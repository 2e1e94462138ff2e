//! Takes the kernel proper, an ELF executable, out of a bzImage: what VMMs boot without a firmware, and without unpacking it
//! inside the guest.

use anyhow::{Context, Result, bail, ensure};
use std::io::Read;

/// Largest kernel that is unpacked, as a bound on damaged files.
const MOST_BYTES: u64 = 1 << 30;

/// The ELF executable in a bzImage: `Documentation/arch/x86/boot.rst` of the kernel says where it is, its first bytes how it is
/// compressed.
///
/// # Errors
/// When the file is something else, or compressed in a way that is not known.
pub fn extract(image: &[u8]) -> Result<Vec<u8>> {
    /// Offsets in the header.
    const SETUP_SECTORS: usize = 0x1f1;
    const MAGIC: usize = 0x202;
    const VERSION: usize = 0x206;
    const PAYLOAD_OFFSET: usize = 0x248;
    const PAYLOAD_LENGTH: usize = 0x24c;
    ensure!(image.len() > PAYLOAD_LENGTH + 4 && &image[MAGIC..MAGIC + 4] == b"HdrS", "it is no bzImage");
    let version = u16::from_le_bytes([image[VERSION], image[VERSION + 1]]);
    ensure!(version >= 0x208, "its boot protocol {version:#x} is older than 2.08, which tells where the kernel is");
    let word = |at: usize| -> Result<usize> { Ok(u32::from_le_bytes(image[at..at + 4].try_into()?) as usize) };
    let sectors = match image[SETUP_SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + word(PAYLOAD_OFFSET)?;
    let payload = image.get(start..start + word(PAYLOAD_LENGTH)?).context("it is cut off")?;
    let kernel = unpack(payload).context("the kernel in it can't be unpacked")?;
    ensure!(kernel.starts_with(b"\x7fELF"), "what it holds is no ELF executable");
    Ok(kernel)
}

/// Unpacks by whichever of the kernel's compressions the first bytes name. All but gzip are followed by the unpacked size in four
/// bytes, which the readers must not take for more of the stream.
fn unpack(payload: &[u8]) -> Result<Vec<u8>> {
    let stream = &payload[..payload.len().saturating_sub(4)];
    match payload {
        [0x7f, b'E', b'L', b'F', ..] => Ok(payload.to_vec()),
        [0x1f, 0x8b, ..] => all(flate2::read::GzDecoder::new(payload)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => all(lzma_rust2::XzReader::new(stream, false)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => all(ruzstd::decoding::StreamingDecoder::new(stream)?),
        [0x02, 0x21, 0x4c, 0x18, ..] => all(lz4_flex::frame::FrameDecoder::new(stream)),
        [a, b, c, d, ..] => bail!("its compression is not known: it begins with {a:02x} {b:02x} {c:02x} {d:02x}"),
        _ => bail!("it is empty"),
    }
}

fn all(reader: impl Read) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(MOST_BYTES).read_to_end(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// A bzImage of nothing but what is looked at.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend([0xcc; 16]);
        image.extend(payload);
        image.extend([0xcc; 100]);
        image
    }

    #[test]
    fn the_kernel_is_found_and_unpacked() {
        let kernel = [b"\x7fELF".as_slice(), &[b'k'; 100_000]].concat();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&kernel).unwrap();
        assert_eq!(extract(&image(&gzip.finish().unwrap())).unwrap(), kernel);

        // A frame of the old format: its magic number, and blocks with their lengths.
        let block = lz4_flex::block::compress(&kernel);
        let mut lz4 = [0x02, 0x21, 0x4c, 0x18].to_vec();
        lz4.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        lz4.extend(block);
        lz4.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
        assert_eq!(extract(&image(&lz4)).unwrap(), kernel);

        let mut zstd =
            ruzstd::encoding::compress_to_vec(kernel.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        zstd.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
        assert_eq!(extract(&image(&zstd)).unwrap(), kernel);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |image: &[u8]| format!("{:#}", extract(image).unwrap_err());
        assert!(error(b"#!/bin/sh").contains("no bzImage"));
        assert!(error(&image(b"abcdef")).contains("begins with 61 62 63 64"));
        let whole = image(b"\x7fELF and more");
        assert!(error(&whole[..whole.len() - 105]).contains("cut off"));
    }
}
