//! What a page says of a project's files: where they are, and what vouches for them.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};

use boatyard_oci::Digest;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::address::is_file;
use super::html::{self, Item, Link};
use super::page::is_json;
use crate::ecosystem::json::{self, Members};

/// The most files that are read.
const FILES_MAX: usize = 500_000;
/// The longest address.
const ADDRESS_MAX: usize = 4096;

/// What a page says.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// What addresses are relative to, where it is not the page.
    pub(super) base: Option<String>,
    files: HashMap<String, File>,
}

/// What it says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Its address, as it is written.
    pub(super) url: String,
    /// The digest of its bytes.
    pub(super) digest: Option<Digest>,
    /// The digest of its `.metadata`.
    pub(super) metadata: Option<Digest>,
    /// When it was uploaded, where the page says so.
    pub(super) uploaded: Option<Timestamp>,
    /// Its authors have withdrawn it.
    pub(super) is_yanked: bool,
}

#[derive(Deserialize)]
struct Known {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: Value,
    #[serde(default, rename = "core-metadata")]
    core_metadata: Value,
    #[serde(default, rename = "dist-info-metadata")]
    dist_info_metadata: Value,
    #[serde(default, rename = "data-dist-info-metadata")]
    data_dist_info_metadata: Value,
    #[serde(default, rename = "upload-time")]
    upload_time: Value,
    #[serde(default)]
    yanked: Value,
}

impl Catalogue {
    /// Reads a page.
    ///
    /// # Errors
    /// Where it is none.
    pub(super) fn read(from: impl Read) -> io::Result<Catalogue> {
        let mut from = BufReader::with_capacity(64 * 1024, from);
        let mut catalogue = Catalogue::default();
        if is_json(&mut from)? {
            json::read(from, &mut catalogue)?;
        } else {
            html::read(from, |item| {
                match item {
                    Item::Base(base) => catalogue.base = catalogue.base.take().or(Some(base)),
                    Item::Meta(..) => {}
                    Item::Link(link) => catalogue.link(&link),
                }
                Ok(())
            })?;
        }
        Ok(catalogue)
    }

    /// Returns what it says of a file.
    pub(super) fn get(&self, name: &str) -> Option<&File> {
        self.files.get(name)
    }

    /// Returns all files, in no order.
    pub(super) fn files(&self) -> impl Iterator<Item = (&String, &File)> {
        self.files.iter()
    }

    /// Returns about how many bytes it takes.
    pub(super) fn weight(&self) -> usize {
        let of = |(name, file): (&String, &File)| 384 + name.len() + file.url.len();
        256 + self.files.iter().map(of).sum::<usize>()
    }

    fn link(&mut self, link: &Link) {
        let digest = sha256_of_fragment(&link.fragment);
        let metadata = ["data-core-metadata", "data-dist-info-metadata"]
            .into_iter()
            .find_map(|name| sha256_of_fragment(link.get(name)?));
        let is_yanked = link.get("data-yanked").is_some();
        let file = File { url: link.url.clone(), digest, metadata, uploaded: None, is_yanked };
        self.add(link.file_name(), file);
    }

    fn add(&mut self, name: String, file: File) {
        let room = self.files.len() < FILES_MAX && file.url.len() <= ADDRESS_MAX;
        if room && is_file(&name) {
            // As clients see it, the first one of a name is what the name stands for.
            self.files.entry(name).or_insert(file);
        }
    }
}

impl Members for Catalogue {
    fn enters(&mut self, key: &str) -> bool {
        key == "files"
    }

    fn begin(&mut self, _: &str, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn member(&mut self, of: Option<&str>, _: &str, value: &RawValue) -> io::Result<()> {
        if of.is_none() {
            return Ok(());
        }
        if let Ok(known) = serde_json::from_str::<Known>(value.get()) {
            let metadata =
                [&known.core_metadata, &known.dist_info_metadata, &known.data_dist_info_metadata];
            let metadata =
                metadata.into_iter().find_map(|hashes| sha256(hashes["sha256"].as_str()?));
            let digest = known.hashes["sha256"].as_str().and_then(sha256);
            let url = known.url.split('#').next().unwrap_or_default().to_owned();
            let uploaded = known.upload_time.as_str().and_then(|time| time.parse().ok());
            let is_yanked = matches!(known.yanked, Value::Bool(true) | Value::String(_));
            self.add(known.filename, File { url, digest, metadata, uploaded, is_yanked });
        }
        Ok(())
    }

    fn end(&mut self, _: &str, _: bool) -> io::Result<()> {
        Ok(())
    }
}

fn sha256(hex: &str) -> Option<Digest> {
    format!("sha256:{}", hex.to_ascii_lowercase()).parse().ok()
}

fn sha256_of_fragment(fragment: &str) -> Option<Digest> {
    fragment.split('&').find_map(|one| sha256(one.strip_prefix("sha256=")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let (one, two) = ("ab".repeat(32), "cd".repeat(32));
        let json = format!(
            r#"{{"files":[{{"filename":"a-1.whl","url":"https://f.example/a-1.whl","hashes":{{"sha256":"{one}"}},
            "core-metadata":{{"sha256":"{two}"}}}},{{"filename":"b.whl"}},3,{{"filename":"..","url":"x"}}]}}"#
        );
        let html = format!(
            "<a href='https://f.example/a-1.whl#sha256={one}' data-core-metadata='sha256={two}'>a</a>\
             <a href='a-1.whl'>second</a><a href='..'>up</a>"
        );
        let json = Catalogue::read(json.as_bytes()).unwrap();
        let html = Catalogue::read(html.as_bytes()).unwrap();
        assert_eq!((json.files.len(), &json.files), (1, &html.files));
        let file = json.get("a-1.whl").unwrap();
        assert_eq!(file.metadata, sha256(&two));
        assert!(file.digest.is_some() && sha256("xyz").is_none());
    }
}
