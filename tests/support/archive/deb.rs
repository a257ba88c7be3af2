//! Packages: an `ar` of a version and two tars.

use std::io::Write as _;

/// Makes a package that holds one small file, always of the same bytes for the same version.
pub fn make(name: &str, version: &str) -> Vec<u8> {
    holding(name, version, version.as_bytes())
}

/// Makes a package that holds one file of these bytes.
pub fn holding(name: &str, version: &str, content: &[u8]) -> Vec<u8> {
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: A Test <test@example>\n\
         Description: a test\n"
    );
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", tar("./control", control.as_bytes())),
        ("data.tar.gz", tar(&format!("./usr/share/{name}"), content)),
    ];
    let mut ar = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let len = bytes.len();
        writeln!(ar, "{name:<16}{:<12}{:<6}{:<6}{:<8}{len:<10}`", 0, 0, 0, 100_644).unwrap();
        ar.extend_from_slice(&bytes);
        if len % 2 == 1 {
            ar.push(b'\n');
        }
    }
    ar
}

fn tar(path: &str, bytes: &[u8]) -> Vec<u8> {
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(encoder);
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    builder.append_data(&mut header, path, bytes).unwrap();
    builder.into_inner().unwrap().finish().unwrap()
}
