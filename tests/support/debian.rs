//! A Debian to build upon: debootstrap makes it from the machine's own package sources, once.

use std::path::{Path, PathBuf};

use boatyard_oci::Digest;

use super::place::text;
use super::{Place, Run};

/// Returns the archive of a Debian that has a small C compiler.
pub fn archive() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let archive = cache.join("debian-minbase-tcc.tar");
    // One test makes it, and the others wait.
    let lock = fs_err::File::create(cache.join("debian-minbase-tcc.lock")).unwrap();
    lock.file().lock().unwrap();
    if !archive.exists() {
        let (mirror, release) = mirror();
        let scratch = tempfile::tempdir_in(cache).unwrap();
        let (tree, part) = (scratch.path().join("tree"), scratch.path().join("part.tar"));
        Run::new("debootstrap")
            .args(["--variant=minbase", "--include=tcc,libc6-dev"])
            .args([&release, text(&tree), &mirror])
            .ok();
        Run::new("tar")
            .args(["--numeric-owner", "--xattrs", "--one-file-system", "-C", text(&tree)])
            .args(["--exclude=./var/cache/apt/archives/*.deb", "--exclude=./dev/*"])
            .args(["-cf", text(&part), "."])
            .ok();
        fs_err::rename(part, &archive).unwrap();
    }
    archive
}

/// Returns the mirror and the release that this machine takes its packages from.
fn mirror() -> (String, String) {
    let format = ["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"];
    let targets = Run::new("apt-get").args(format).ok().text();
    // Updates and security fixes are in suites of their own, whose names have a dash.
    let main = targets.lines().filter_map(|line| line.split_once(' '));
    let main = main.filter(|(_, release)| !release.contains('-')).collect::<Vec<_>>();
    let (mirror, release) = main.first().expect("apt has sources");
    ((*mirror).to_owned(), (*release).to_owned())
}

/// Makes a package repository with one package: `greet`, which greets.
pub fn repository(place: &Place, directory: &Path) {
    let control = "Package: greet\nVersion: 1.0\nArchitecture: all\nMaintainer: A Test <test@example>\n\
        Depends: bash\nDescription: greets\n";
    place.write("greet/DEBIAN/control", control);
    place.write("greet/DEBIAN/postinst", "#!/bin/sh\nset -e\necho configured > /etc/greet\n");
    place.write("greet/usr/bin/greet", "#!/bin/bash\necho \"greetings, $(cat /etc/greet)\"\n");
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    for program in ["greet/DEBIAN/postinst", "greet/usr/bin/greet"] {
        fs_err::set_permissions(place.path(program), mode.clone()).unwrap();
    }
    fs_err::create_dir_all(directory).unwrap();
    let package = directory.join("greet_1.0_all.deb");
    place
        .run(
            "dpkg-deb",
            ["--root-owner-group", "--build", text(&place.path("greet")), text(&package)],
        )
        .ok();
    let bytes = fs_err::read(&package).unwrap();
    let index = format!(
        "{control}Filename: ./greet_1.0_all.deb\nSize: {}\nSHA256: {}\n\n",
        bytes.len(),
        Digest::sha256(&bytes).hex()
    );
    fs_err::write(directory.join("Packages"), index).unwrap();
}
