//! What is packed unpacks, here and elsewhere, and what is damaged does not.

use std::io::Write;

use super::super::compress::{Compression, Compressor};
use super::*;

/// Text, then bytes that do not compress, then zeros: four members and a half.
fn sample() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut noise = 1_u64;
    while bytes.len() < 2 << 20 {
        bytes.extend_from_slice(format!("line {} of a text\n", bytes.len()).as_bytes());
    }
    while bytes.len() < 4 << 20 {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        bytes.extend_from_slice(&noise.to_le_bytes());
    }
    bytes.resize(bytes.len() + (1 << 19), 0);
    bytes
}

fn pack(bytes: &[u8], compression: Compression, threads: usize) -> Vec<u8> {
    let mut compressor = Compressor::new(Vec::new(), compression, threads).unwrap();
    // Pieces do not depend on how the bytes come.
    for part in bytes.chunks(77_777) {
        compressor.write_all(part).unwrap();
    }
    compressor.finish().unwrap()
}

fn unpack(bytes: &[u8], threads: usize) -> io::Result<Vec<u8>> {
    let mut decompressor = Decompressor::new(bytes, threads, DecompressLimits::default())?;
    let mut unpacked = Vec::new();
    decompressor.read_to_end(&mut unpacked)?;
    Ok(unpacked)
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let sample = sample();
    for compression in [Compression::None, Compression::GZIP, Compression::ZSTD] {
        let one = pack(&sample, compression, 1);
        for threads in [0, 2, 5] {
            assert!(pack(&sample, compression, threads) == one, "{compression:?} {threads}");
        }
        for threads in [1, 2, 5] {
            assert!(unpack(&one, threads).unwrap() == sample, "{compression:?} {threads}");
        }
    }
}

#[test]
fn nothing_is_a_whole_stream_too() {
    for compression in [Compression::None, Compression::GZIP, Compression::ZSTD] {
        let packed = pack(b"", compression, 2);
        assert_eq!(packed.is_empty(), compression == Compression::None);
        assert_eq!(unpack(&packed, 2).unwrap(), b"");
    }
}

#[test]
fn other_readers_read_our_gzip() {
    let sample = sample();
    let packed = pack(&sample, Compression::GZIP, 2);
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == sample);
    assert_eq!(&packed[..16], b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x08\0BY\x04\0");
}

#[test]
fn what_does_not_compress_is_stored() {
    let noise = &sample()[2 << 20..3 << 20];
    let packed = pack(noise, Compression::GZIP, 1);
    assert!(packed.len() < noise.len() + 200, "{}", packed.len());
    assert!(unpack(&packed, 1).unwrap() == noise);
}

fn foreign_gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn members_of_others_are_read_to_the_last() {
    let packed =
        [foreign_gzip(b"one "), foreign_gzip(b"two "), pack(b"three", Compression::GZIP, 1)];
    assert_eq!(unpack(&packed.concat(), 2).unwrap(), b"one two three");
    let packed = [pack(b"ours ", Compression::GZIP, 1), foreign_gzip(b"theirs")];
    assert_eq!(unpack(&packed.concat(), 2).unwrap(), b"ours theirs");
}

#[test]
fn every_format_is_told_by_its_start() {
    let content = b"content".repeat(1000);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&content).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&content).unwrap();
    for (packed, format) in [
        (content.clone(), Format::None),
        (foreign_gzip(&content), Format::Gzip),
        (zstd::encode_all(content.as_slice(), 1).unwrap(), Format::Zstd),
        (bzip2.finish().unwrap(), Format::Bzip2),
        (xz.finish().unwrap(), Format::Xz),
    ] {
        let limits = DecompressLimits::default();
        assert_eq!(Decompressor::new(packed.as_slice(), 1, limits).unwrap().format(), format);
        assert!(unpack(&packed, 1).unwrap() == content, "{format:?}");
        let twice = [packed.as_slice(), &packed].concat();
        assert!(unpack(&twice, 1).unwrap() == content.repeat(2), "{format:?} twice");
    }
}

#[test]
fn short_streams_are_not_packed() {
    for bytes in [&b""[..], b"a", b"\x1f", b"\x1f\x8b"] {
        assert_eq!(unpack(bytes, 1).unwrap(), bytes);
    }
}

#[test]
fn damage_is_found() {
    let sample = sample();
    for compression in [Compression::GZIP, Compression::ZSTD] {
        let packed = pack(&sample[..3 << 20], compression, 1);
        for at in [30, packed.len() / 2, packed.len() - 3] {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x10;
            assert!(unpack(&damaged, 2).is_err(), "{compression:?} {at}");
        }
        for length in [10, 25, packed.len() / 2, packed.len() - 1] {
            assert!(unpack(&packed[..length], 2).is_err(), "{compression:?} cut at {length}");
        }
    }
}

#[test]
fn a_member_cannot_lie_about_its_length() {
    let packed = pack(b"content", Compression::GZIP, 1);
    for length in [0_u32, 20, 28, 29, packed.len() as u32 - 1, packed.len() as u32 + 1, u32::MAX] {
        let mut lying = packed.clone();
        lying[16..20].copy_from_slice(&length.to_le_bytes());
        // Either it is no member of ours, and read as anybody's, or it is damaged.
        if let Ok(unpacked) = unpack(&lying, 1) {
            assert_eq!(unpacked, b"content");
        }
    }
}

#[test]
fn bombs_stop_at_the_limit() {
    let zeros = vec![0; 100 << 20];
    for compression in [Compression::GZIP, Compression::ZSTD] {
        let bomb = pack(&zeros, compression, 2);
        let run = |limits| {
            let mut decompressor = Decompressor::new(bomb.as_slice(), 1, limits).unwrap();
            io::copy(&mut decompressor, &mut io::sink()).map_err(|error| error.to_string())
        };
        let default = DecompressLimits::default();
        assert_eq!(run(default), Ok(100 << 20));
        let large = run(DecompressLimits { bytes_max: 1 << 20, ..default }).unwrap_err();
        assert_eq!(large, "more than 1048576 bytes come out of the compressed stream");
        let ratio = run(DecompressLimits { ratio_max: Some(100), ..default }).unwrap_err();
        assert_eq!(ratio, "the stream unpacks to more than 100 times its size");
    }
}
