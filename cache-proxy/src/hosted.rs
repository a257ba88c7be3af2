//! Private packages of a configured upstream: who may publish and read them, and where they lie.
//!
//! An upstream hosts packages where its configuration has `private` names, or no URL at all. Its
//! ecosystem finds them by `request.upstream` and its [`Upstream::hosted`](crate::Upstream):
//!
//! ```text
//! GET  ─▶ classify ─▶ Resolve ─▶ resolve:  hosted.is_private(name)?
//!                                    no ──▶ as ever
//!                                    yes ─▶ hosted.package(request, name) ─▶ Resolution::Reply / Blob
//! PUT  ─▶ receives? ─▶ the body becomes a blob ─▶ receive: read it, hosted.publish(...) ─▶ Reply
//! ```
//!
//! The rules of the configuration know a private package as the repository
//! `packages/<upstream>/<package>` ([`rule_name`]), all private packages of an upstream together as
//! `packages/<upstream>`: `push` there publishes, `delete` withdraws and removes, and `pull` of
//! `packages/<upstream>` reads. Without rules it is as with the registry: everybody reads, and who
//! is on this machine writes, if nobody else can reach us.

mod refused;
mod upload;

use std::sync::Arc;

use boatyard_access::{Access as _, Action, Authority, Caller, Deed, Entry, Verdict};
use boatyard_content::Root;
use boatyard_content::packages::{
    Listing, NewFile, Package, PackageRepository, PackagesError, Published,
};
use boatyard_oci::RepositoryName;

use crate::policy::NamePatterns;
use crate::request::Request;

pub use refused::Refused;
pub use upload::Upload;

/// The private packages of an upstream.
#[derive(Clone, Debug)]
pub struct Hosted {
    packages: PackageRepository,
    names: NamePatterns,
    authority: Arc<Authority>,
    root: Arc<Root>,
    is_alone: bool,
}

/// A private package, as far as a client may see it.
#[derive(Clone, Debug)]
pub enum Seen {
    /// The client may not see private packages: [`Reply::unauthorized`], or 404.
    Hidden,
    /// Nothing of this name is published; where it is private, the upstream is not asked either.
    Absent,
    /// This one. It may have no files any more.
    There(Arc<Package>),
}

/// Who a client is, and what it may do with the private packages of the request's upstream.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    /// The client; `None` where the upstream hosts nothing.
    pub caller: Option<Arc<Caller>>,
    /// Whether it may read private packages.
    pub reads: bool,
}

impl Hosted {
    /// Returns the private packages of an upstream. Where `is_alone`, there is no upstream: every
    /// name is private.
    pub fn new(
        root: &Arc<Root>,
        authority: Arc<Authority>,
        (ecosystem, upstream): (&str, &str),
        names: NamePatterns,
        is_alone: bool,
    ) -> Hosted {
        let packages = root.packages().repository(ecosystem, upstream);
        Hosted { packages, names, authority, root: Arc::clone(root), is_alone }
    }

    /// Returns where they lie.
    pub fn packages(&self) -> &PackageRepository {
        &self.packages
    }

    /// Returns the root, with the store of all blobs.
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Returns what says who is who.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Says that there is no upstream behind it.
    pub fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Returns all that is published; nothing where the files cannot be read, which the log tells.
    pub fn listing(&self) -> Arc<Listing> {
        self.packages.listing().unwrap_or_else(|error| {
            tracing::error!(packages = ?self.packages, %error, "private packages cannot be read");
            Arc::default()
        })
    }

    /// Says whether a name is private: by the configuration, or because something was published
    /// under it. Then the upstream is never asked for it. One `stat`.
    pub fn is_private(&self, package: &str) -> bool {
        self.is_alone || self.names.matches(package) || self.listing().get(package).is_some()
    }

    /// Returns a private package as the client of a request sees it.
    pub fn package(&self, request: &Request, package: &str) -> Seen {
        if !request.admitted.reads {
            return Seen::Hidden;
        }
        self.listing().get(package).map_or(Seen::Absent, |found| Seen::There(Arc::clone(found)))
    }

    /// Says whether the client of a request may change a private package: [`Action::Push`] to
    /// publish, [`Action::Delete`] to withdraw, to take that back and to remove. The audit log hears
    /// of who may not.
    ///
    /// # Errors
    /// Where it may not.
    pub fn permit(&self, request: &Request, action: Action, package: &str) -> Result<(), Refused> {
        let caller = request.admitted.caller.as_deref().ok_or(Refused::Login)?;
        if !self.is_private(package) {
            return Err(Refused::Public { package: package.to_owned() });
        }
        let name = rule_name(self.packages.name(), package).ok_or(PackagesError::Name)?;
        match self.authority.decide(caller, action, Some(&name)) {
            Verdict::Allowed => Ok(()),
            Verdict::Unauthenticated { .. } => Err(Refused::Login),
            Verdict::Denied => {
                self.note(caller, Deed::Denied, &name, package, None);
                Err(Refused::Denied {
                    who: caller.identity().to_string(),
                    right: action.right().map_or("pull", |right| right.as_str()),
                    repository: name.to_string(),
                })
            }
        }
    }

    /// Publishes a file, if the client of a request may; the audit log hears of it. `new.by` is set
    /// to who they are. Blocking.
    ///
    /// # Errors
    /// Where they may not, or it cannot be written. That the version is there already is no error:
    /// see [`Published`].
    pub fn publish(&self, request: &Request, mut new: NewFile) -> Result<Published, Refused> {
        self.permit(request, Action::Push, &new.package)?;
        let caller = request.admitted.caller.as_deref().ok_or(Refused::Login)?;
        new.by = caller.identity().to_string();
        let published = self.packages.publish(&new)?;
        if let (Published::New(file), Some(name)) =
            (&published, rule_name(self.packages.name(), &new.package))
        {
            let digest = Some(file.blob.to_string());
            self.note(caller, Deed::Push, &name, &new.file, digest);
        }
        Ok(published)
    }

    /// Withdraws the files of a version (or takes that back: `why` is `None`), if the client may.
    /// Returns how many there are. Blocking.
    ///
    /// # Errors
    /// Where they may not, or it cannot be written.
    pub fn withdraw(
        &self,
        request: &Request,
        (package, version, file): (&str, &str, Option<&str>),
        why: Option<&str>,
    ) -> Result<usize, Refused> {
        self.permit(request, Action::Delete, package)?;
        let found = self.packages.withdraw(package, version, file, why)?;
        self.note_change(request, package, version, why.map_or("reinstated", |_| "withdrawn"));
        Ok(found)
    }

    /// Removes the files of a version, if the client may. Returns how many there were. Blocking.
    ///
    /// # Errors
    /// Where they may not, or it cannot be written.
    pub fn remove(
        &self,
        request: &Request,
        (package, version, file): (&str, &str, Option<&str>),
    ) -> Result<usize, Refused> {
        self.permit(request, Action::Delete, package)?;
        let caller = request.admitted.caller.as_deref().ok_or(Refused::Login)?;
        let by = caller.identity().to_string();
        let found = self.packages.remove(package, version, file, &by, jiff::Timestamp::now())?;
        self.note_change(request, package, version, "removed");
        Ok(found)
    }

    fn note_change(&self, request: &Request, package: &str, version: &str, what: &str) {
        if let (Some(caller), Some(name)) =
            (request.admitted.caller.as_deref(), rule_name(self.packages.name(), package))
        {
            let mut line = entry(caller, Deed::Delete);
            line.repository = Some(name.to_string());
            line.target = Some(version.to_owned());
            line.detail = Some(what.to_owned());
            self.authority.record(&line);
        }
    }

    fn note(
        &self,
        caller: &Caller,
        deed: Deed,
        name: &RepositoryName,
        target: &str,
        digest: Option<String>,
    ) {
        let mut line = entry(caller, deed);
        line.repository = Some(name.to_string());
        line.target = Some(target.to_owned());
        line.digest = digest;
        self.authority.record(&line);
    }
}

fn entry(caller: &Caller, deed: Deed) -> Entry {
    Entry::from_origin(deed, caller.identity().to_string(), caller.origin())
}

/// Returns what rules call a private package: `packages/<upstream>/<package>`, in lower case, without
/// the `@` of a scope, with `-` for whatever no repository's name has. `None` where nothing is left.
pub fn rule_name(upstream: &str, package: &str) -> Option<RepositoryName> {
    // The plugins of a Maven group are called `com.acme:`.
    let parts = package.trim_end_matches(':').split(['/', ':']).map(part);
    let parts = ["packages".to_owned(), part(upstream)].into_iter().chain(parts);
    parts.collect::<Vec<_>>().join("/").parse().ok()
}

/// Returns what rules call all private packages of an upstream together: `packages/<upstream>`.
pub fn rule_name_of_all(upstream: &str) -> Option<RepositoryName> {
    format!("packages/{}", part(upstream)).parse().ok()
}

/// Returns a text as one part of a repository's name: runs of what is no letter or digit are one `.`,
/// `_` or as many `-`.
fn part(text: &str) -> String {
    let mut part = String::with_capacity(text.len());
    let is_word = |c: char| c.is_ascii_alphanumeric();
    for run in text.split_inclusive(is_word) {
        let (run, word) = match run.chars().last().filter(|last| is_word(*last)) {
            Some(word) => (&run[..run.len() - 1], Some(word)),
            None => (run, None),
        };
        let Some(word) = word else { break };
        if !part.is_empty() {
            match run {
                "" | "." | "_" | "__" => part.push_str(run),
                run => part.extend(run.chars().map(|_| '-')),
            }
        }
        part.push(word.to_ascii_lowercase());
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_packages_as_repositories() {
        for (package, expected) in [
            ("@acme/Widget", Some("packages/up/acme/widget")),
            ("acme_tools", Some("packages/up/acme_tools")),
            ("acme+tools..x", Some("packages/up/acme-tools--x")),
            ("_acme_", Some("packages/up/acme")),
            ("com.acme:app", Some("packages/up/com.acme/app")),
            ("com.acme:", Some("packages/up/com.acme")),
            ("corp.example/a/B", Some("packages/up/corp.example/a/b")),
            ("@", None),
            ("a//b", None),
            ("\u{e9}", None),
        ] {
            let name = rule_name("up", package);
            assert_eq!(name.as_ref().map(RepositoryName::as_str), expected, "{package}");
        }
        assert_eq!(rule_name_of_all("Up").unwrap().as_str(), "packages/up");
    }
}
