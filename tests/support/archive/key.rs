//! A key that signs archives, of the test's own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A key pair, and the file with its public half.
pub struct Key {
    home: tempfile::TempDir,
    public: PathBuf,
}

impl Key {
    /// Makes a key.
    pub fn new() -> Key {
        // gpg's agent listens at a socket there, whose path must be short.
        let home = tempfile::Builder::new().prefix("key").tempdir_in("/tmp").unwrap();
        let public = home.path().join("public.gpg");
        let key = Key { home, public };
        let uid = "A Test <test@example>";
        key.gpg(&["--quick-gen-key", uid, "ed25519", "sign", "never"], b"");
        let exported = key.gpg(&["--export", uid], b"");
        fs_err::write(&key.public, exported).unwrap();
        key
    }

    /// Returns the file with the public key.
    pub fn public(&self) -> &Path {
        &self.public
    }

    /// Returns the public key, as it is written for mails.
    pub fn armored(&self) -> Vec<u8> {
        self.gpg(&["--armor", "--export"], b"")
    }

    /// Signs a text in place.
    pub fn clearsign(&self, text: &[u8]) -> Vec<u8> {
        self.gpg(&["--clearsign"], text)
    }

    /// Signs a text beside it.
    pub fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.gpg(&["--armor", "--detach-sign"], text)
    }

    fn gpg(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut gpg = Command::new("gpg")
            .arg("--homedir")
            .arg(self.home.path())
            .args(["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("gpg is installed");
        gpg.stdin.take().unwrap().write_all(input).unwrap();
        let output = gpg.wait_with_output().unwrap();
        assert!(output.status.success(), "gpg {args:?}");
        output.stdout
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // Its agent would outlive the test.
        let home = self.home.path();
        let kill =
            Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "all"]).status();
        assert!(kill.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}
