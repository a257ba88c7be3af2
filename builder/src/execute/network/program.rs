//! The programs of others that a network needs.

use std::path::{Path, PathBuf};

use super::NetworkError;

/// Where administrators' programs are, which an ordinary user's `PATH` leaves out.
const SYSTEM: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Finds `name` in `search`, and where the system has such programs.
pub(super) fn find(
    name: &'static str,
    package: &'static str,
    search: &[PathBuf],
) -> Result<PathBuf, NetworkError> {
    let directories = search.iter().map(PathBuf::as_path).chain(SYSTEM.iter().map(Path::new));
    directories
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .ok_or(NetworkError::Missing { program: name, package })
}
