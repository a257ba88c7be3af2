//! The contexts of a build under way, each with what is remembered of its files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::directory::Directory;
use super::stat_cache::StatCache;

/// The contexts of a build: its own, and those that have names.
#[derive(Debug, Default)]
pub(crate) struct OpenContexts {
    own: Option<OpenContext>,
    named: BTreeMap<String, OpenContext>,
}

/// One context.
#[derive(Debug)]
pub(crate) struct OpenContext {
    directory: Arc<Directory>,
    known: OnceLock<StatCache>,
}

impl OpenContexts {
    /// Returns the contexts; `own` is that of the build.
    pub(crate) fn new(own: Option<Arc<Directory>>) -> OpenContexts {
        OpenContexts { own: own.map(OpenContext::new), named: BTreeMap::new() }
    }

    /// Adds a context that has a name.
    pub(crate) fn add(&mut self, name: &str, directory: Directory) {
        self.named.insert(name.to_owned(), OpenContext::new(Arc::new(directory)));
    }

    /// Returns the context of a name; without one that of the build.
    pub(crate) fn get(&self, name: Option<&str>) -> Option<&OpenContext> {
        name.map_or(self.own.as_ref(), |name| self.named.get(name))
    }

    /// Keeps what was learned of all files; where that fails, it costs the next build time.
    pub(crate) fn save(&self) {
        for known in self.own.iter().chain(self.named.values()).filter_map(|it| it.known.get()) {
            let _ = known.save();
        }
    }
}

impl OpenContext {
    fn new(directory: Arc<Directory>) -> OpenContext {
        OpenContext { directory, known: OnceLock::new() }
    }

    /// Returns its files.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Returns what is known of them; `root` is the build's.
    pub(crate) fn known(&self, root: &Path) -> &StatCache {
        self.known.get_or_init(|| match self.directory.is_lasting() {
            true => StatCache::open(root, &self.directory),
            // Nobody will see these inodes again.
            false => StatCache::default(),
        })
    }
}
