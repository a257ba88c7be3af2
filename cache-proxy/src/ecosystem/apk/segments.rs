//! A package: segments that are packed one behind the other, each vouched for by the one before.
//!
//! > "An APK package [...] three segments [...] the first is the signature of the second, the second
//! > is the control segment, whose .PKGINFO has `datahash`, the SHA-256 of the third" (Alpine's format
//! > of packages; all digests are of the bytes as they are packed)

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The most bytes of a signature or control segment, unpacked.
const SEGMENT_MAX: u64 = 16 << 20;

/// Why bytes are not the package that an index lists.
#[derive(Debug, thiserror::Error)]
pub enum SegmentsError {
    /// They could not be read, or not be unpacked.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// The control segment is another one.
    #[error("its control segment is not the one that the index lists")]
    Control,
    /// The files are others.
    #[error("its files are not those that its control segment lists")]
    Data,
}

/// Checks that a package has this control segment, and the files that that one says.
///
/// # Errors
/// Where it is another, or none.
pub fn check(package: impl BufRead, control: &[u8; 20]) -> Result<(), SegmentsError> {
    let mut package = Hashing { inner: package, sha1: Sha1::new(), sha256: Sha256::new() };
    let mut segment = package.segment()?;
    if segment.first.starts_with(".SIGN.") {
        segment = package.segment()?;
    }
    if segment.sha1 != *control {
        return Err(SegmentsError::Control);
    }
    package.sha256 = Sha256::new();
    io::copy(&mut package, &mut io::sink())?;
    // Packages of before 2008 have none; the control segment is all that an index says of them.
    let Some(expected) = segment.datahash else { return Ok(()) };
    let hex: String = package.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if hex == expected { Ok(()) } else { Err(SegmentsError::Data) }
}

/// What is known of a segment that was read.
struct Segment {
    /// The name of its first file.
    first: String,
    /// `datahash` of its `.PKGINFO`.
    datahash: Option<String>,
    /// What it hashes to, packed.
    sha1: [u8; 20],
}

/// A reader that hashes what is taken from it.
struct Hashing<R> {
    inner: R,
    sha1: Sha1,
    sha256: Sha256,
}

impl<R: BufRead> Hashing<R> {
    fn segment(&mut self) -> io::Result<Segment> {
        self.sha1 = Sha1::new();
        let mut unpacked = GzDecoder::new(&mut *self).take(SEGMENT_MAX);
        let mut archive = tar::Archive::new(&mut unpacked);
        let (mut first, mut datahash) = (None, None);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if name == ".PKGINFO" {
                let mut text = String::new();
                (&mut entry).take(1 << 20).read_to_string(&mut text)?;
                let mut lines = text.lines().filter_map(|line| line.split_once(" = "));
                datahash = lines.find(|(key, _)| *key == "datahash").map(|(_, hex)| hex.to_owned());
            }
            first = first.or(Some(name));
        }
        // What is behind the end of the archive is the segment's, too.
        io::copy(&mut unpacked, &mut io::sink())?;
        if unpacked.limit() == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a segment is too large"));
        }
        let sha1 = std::mem::take(&mut self.sha1).finalize().into();
        Ok(Segment { first: first.unwrap_or_default(), datahash, sha1 })
    }
}

impl<R: BufRead> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl<R: BufRead> BufRead for Hashing<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        // What is there is there: nothing is read for that.
        if let Ok(bytes) = self.inner.fill_buf() {
            let taken = &bytes[..amount.min(bytes.len())];
            self.sha1.update(taken);
            self.sha256.update(taken);
        }
        self.inner.consume(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(files: &[(&str, &[u8])]) -> Vec<u8> {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut builder = tar::Builder::new(gzip);
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn control(data: &[u8]) -> Vec<u8> {
        let hex: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
        segment(&[(".PKGINFO", format!("pkgname = a\ndatahash = {hex}\n").as_bytes())])
    }

    #[test]
    fn each_segment_is_checked() {
        let data = segment(&[("usr/bin/a", &[b'x'; 70_000])]);
        let (signature, control) = (segment(&[(".SIGN.RSA.k", b"s")]), control(&data));
        let sum: [u8; 20] = Sha1::digest(&control).into();
        let whole = [&signature[..], &control, &data].concat();
        assert!(check(&whole[..], &sum).is_ok());
        assert!(check(&[&control[..], &data].concat()[..], &sum).is_ok(), "unsigned");
        assert!(matches!(check(&whole[..], &[0; 20]), Err(SegmentsError::Control)));
        let at = whole.len() - data.len() / 2;
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        assert!(matches!(check(&damaged[..], &sum), Err(SegmentsError::Data)));
        assert!(matches!(check(&whole[..whole.len() - 1], &sum), Err(SegmentsError::Data)));
        let longer = [&whole[..], b"x"].concat();
        assert!(matches!(check(&longer[..], &sum), Err(SegmentsError::Data)));
        assert!(matches!(check(&b"<html>"[..], &sum), Err(SegmentsError::Read(_))));
        assert!(check(&b""[..], &sum).is_err());
    }
}
