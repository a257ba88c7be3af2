//! Formats that are JSON: those of npm.

use serde_json::Value;

use super::package::{Kind, Package};

/// Reads the `package.json` of an installed package.
pub(super) fn package(text: &str, path: &str) -> Option<Package> {
    let value: Value = serde_json::from_str(text).ok()?;
    let (name, version) = (value["name"].as_str()?, value["version"].as_str()?);
    let mut package = Package::new(Kind::Npm, name, version, path);
    let license = value["license"].as_str().or_else(|| value["license"]["type"].as_str());
    package.license = license.map(str::to_owned);
    Some(package)
}

/// Reads a `package-lock.json` of any version.
pub(super) fn lock(text: &str, path: &str) -> Vec<Package> {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let mut found = Vec::new();
    if let Some(packages) = value["packages"].as_object() {
        for (place, about) in packages {
            // "" is the project, links lead to its own directories.
            let Some((_, name)) = place.rsplit_once("node_modules/") else { continue };
            let name = about["name"].as_str().unwrap_or(name);
            if let Some(version) = about["version"].as_str() {
                found.push(Package::new(Kind::Npm, name, version, path));
            }
        }
    } else {
        dependencies(&value, path, &mut found, 0);
    }
    found
}

/// Reads the nested `dependencies` of version 1.
fn dependencies(value: &Value, path: &str, found: &mut Vec<Package>, depth: usize) {
    const DEPTH_MAX: usize = 64;
    let Some(all) = value["dependencies"].as_object().filter(|_| depth < DEPTH_MAX) else { return };
    for (name, about) in all {
        if let Some(version) = about["version"].as_str() {
            found.push(Package::new(Kind::Npm, name, version, path));
        }
        dependencies(about, path, found, depth + 1);
    }
}
