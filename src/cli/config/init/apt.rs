//! What apt fetches from.

use super::Answer;
use super::clients::{addresses, answer};
use super::program::{Said, ask, program};

/// Asks apt for the archives of its indexes.
pub fn upstreams() -> Answer {
    let said = ask(program("apt-get", &["indextargets", "--format", "$(REPO_URI)"]));
    let Said::Text(text) = &said else { return answer("apt", "apt", &said, Vec::new()) };
    let mut urls = addresses(text.split_whitespace());
    urls.sort();
    answer("apt", "apt", &said, urls)
}
