//! The root, and the file system that it is on.

use std::path::Path;

use boatyard_content::local::fitness::{FileSystem, kind};

use super::{Finding, Section};
use crate::output;

/// Less than this is soon gone.
const BYTES_WANTED: u64 = 1 << 30;
const FILES_WANTED: u64 = 100_000;

/// Examines where the root is or would be; tells whether it can be there.
pub(super) fn examine(root: &Path) -> (bool, Section) {
    let there = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let mut findings = vec![match there == root {
        true => Finding::fact("directory", root.display().to_string()),
        false => Finding::fact("directory", format!("{}, to be made", root.display())),
    }];
    let fit = match FileSystem::examine(there) {
        Ok(found) => {
            findings.extend(file_system(&found));
            found.unfit().is_none()
        }
        Err(error) => {
            let text = format!("nothing can be made in {}: {error}", there.display());
            findings.push(Finding::bad("file system", text).remedy("--root names another place"));
            false
        }
    };
    findings.extend(kind(there).ok().filter(|kind| kind == "overlay").map(|_| {
        Finding::fact("container", "what is kept here goes with it, unless the root is on a volume")
    }));
    (fit, Section { name: "The root", findings })
}

fn file_system(found: &FileSystem) -> Vec<Finding> {
    let mut findings = Vec::new();
    if found.unfit().is_none() {
        findings.push(Finding::good("file system", found.kind.clone()));
    }
    for missing in &found.missing {
        let text = format!("{}: no {}: {}", found.kind, missing.feature, missing.why);
        let finding = match missing.feature.is_needed() {
            true => Finding::bad("file system", text),
            false => Finding::missing("file system", text),
        };
        findings.push(finding.remedy(missing.feature.remedy()));
    }
    let (free, all) = (output::size(found.bytes_free), output::size(found.bytes));
    let space = format!("{free} of {all} free");
    findings.push(match found.bytes_free {
        ..BYTES_WANTED => Finding::missing("space", space)
            .remedy("`boatyard gc` frees what nothing refers to; --root names another place"),
        _ => Finding::good("space", space),
    });
    findings.push(match found.files_free {
        Some(free @ ..FILES_WANTED) => {
            Finding::missing("inodes", format!("{free} free; an image may have as many files"))
        }
        Some(free) => Finding::good("inodes", format!("{free} free")),
        None => Finding::good("inodes", "as many as there is space for"),
    });
    findings
}
