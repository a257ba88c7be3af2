//! Formats that are lines: metadata with headers, lock files of Ruby, Rust and Go, os-release.

use super::package::{Distribution, Kind, Package};

/// Reads `NAME=value` lines (os-release(5)).
pub(super) fn os_release(text: &str) -> Distribution {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    let id = match value("ID") {
        id if id.is_empty() => "linux".to_owned(),
        id => id,
    };
    Distribution { id, version: value("VERSION_ID") }
}

/// Reads the headers of a Python distribution's metadata.
pub(super) fn python(text: &str, path: &str) -> Option<Package> {
    let header = |key: &str| {
        let lines = text.lines().take_while(|line| !line.is_empty());
        let found = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let mut package = Package::new(Kind::Pypi, &header("Name")?, &header("Version")?, path);
    let license = header("License-Expression").or_else(|| header("License"));
    package.license = license.filter(|license| license != "UNKNOWN");
    Some(package)
}

/// Reads the `specs` of a Gemfile.lock: those that are indented by four.
pub(super) fn gemfile_lock(text: &str, path: &str) -> Vec<Package> {
    let specs = text.lines().filter_map(|line| {
        let spec = line.strip_prefix("    ").filter(|spec| !spec.starts_with(' '))?;
        let (name, version) = spec.split_once(" (")?;
        let version = version.strip_suffix(')')?;
        version.starts_with(|first: char| first.is_ascii_digit()).then_some((name, version))
    });
    specs.map(|(name, version)| Package::new(Kind::Gem, name, version, path)).collect()
}

/// Reads an installed gem: its name and version are those of its file, its licenses are inside.
pub(super) fn gemspec(text: &str, path: &str) -> Option<Package> {
    let file = path.rsplit('/').next()?.strip_suffix(".gemspec")?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| {
            let (left, right) = line.split_once('=')?;
            left.trim().ends_with(key).then(|| right.trim())
        })?;
        let value: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        (!value.is_empty()).then(|| value.join(", "))
    };
    let (name, version) = match (value("s.name"), value("s.version")) {
        (Some(name), Some(version)) => (name, version),
        _ => {
            let (name, version) = file.rsplit_once('-')?;
            (name.to_owned(), version.to_owned())
        }
    };
    let mut package = Package::new(Kind::Gem, &name, &version, path);
    package.license = value("s.licenses");
    Some(package)
}

/// Reads the packages of a Cargo.lock.
pub(super) fn cargo_lock(text: &str, path: &str) -> Vec<Package> {
    let mut found = Vec::new();
    for block in text.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            line.map(|value| value.trim_matches('"'))
        };
        if let (Some(name), Some(version)) = (value("name"), value("version")) {
            found.push(Package::new(Kind::Cargo, name, version, path));
        }
    }
    found
}

/// Reads the modules of a go.sum whose content, not only whose go.mod, was used.
pub(super) fn go_sum(text: &str, path: &str) -> Vec<Package> {
    let modules = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (module, version) = (words.next()?, words.next()?);
        (!version.ends_with("/go.mod")).then_some((module, version))
    });
    modules.map(|(module, version)| Package::new(Kind::Golang, module, version, path)).collect()
}
