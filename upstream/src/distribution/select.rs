//! Choosing from an index the manifest for a platform.

use boatyard_oci::{Descriptor, Platform};

/// Returns the entry of an index that runs on `wanted`: the one for exactly this platform, else
/// that with the highest variant, else the first. Attestations (BuildKit lists them as
/// `unknown/unknown`) are no images.
pub(crate) fn choose<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    let mut best: Option<(&Descriptor, Rank)> = None;
    for entry in entries.iter().filter(|entry| !is_attestation(entry)) {
        let Some(platform) = &entry.platform else {
            continue;
        };
        if !wanted.runs(platform) {
            continue;
        }
        let rank = rank(platform, wanted);
        if best.as_ref().is_none_or(|(_, so_far)| rank > *so_far) {
            best = Some((entry, rank));
        }
    }
    best.map(|(entry, _)| entry).or_else(|| only_unmarked(entries))
}

/// Whether a platform is exactly the wanted one, and its variant.
type Rank = (bool, Option<String>);

fn rank(platform: &Platform, wanted: &Platform) -> Rank {
    let normal = |platform: &Platform| {
        Platform::normalised(&platform.os, &platform.architecture, platform.variant.as_deref())
    };
    let (platform, wanted) = (normal(platform), normal(wanted));
    (platform == wanted, platform.variant)
}

/// Returns the one entry of an index that says nothing of platforms.
fn only_unmarked(entries: &[Descriptor]) -> Option<&Descriptor> {
    match entries {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    }
}

pub(crate) fn is_attestation(entry: &Descriptor) -> bool {
    entry
        .platform
        .as_ref()
        .is_some_and(|platform| platform.os == "unknown" && platform.architecture == "unknown")
}

/// Returns what an index offers, for an error's message.
pub(crate) fn offered(entries: &[Descriptor]) -> String {
    let platforms: Vec<String> = entries
        .iter()
        .filter(|entry| !is_attestation(entry))
        .filter_map(|entry| entry.platform.as_ref())
        .map(ToString::to_string)
        .take(20)
        .collect();
    if platforms.is_empty() { "nothing".to_owned() } else { platforms.join(", ") }
}

#[cfg(test)]
mod tests {
    use boatyard_oci::MediaType;

    use super::*;

    fn entry(platform: Option<(&str, &str, Option<&str>)>) -> Descriptor {
        let text = format!("{platform:?}");
        Descriptor {
            platform: platform.map(|(os, architecture, variant)| Platform {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                variant: variant.map(str::to_owned),
                os_version: None,
                os_features: Vec::new(),
            }),
            ..Descriptor::of(MediaType::OCI_MANIFEST, text.as_bytes())
        }
    }

    #[test]
    fn the_best_entry_that_runs() {
        let entries = [
            entry(Some(("unknown", "unknown", None))),
            entry(Some(("linux", "arm", Some("v5")))),
            entry(Some(("linux", "arm", Some("v6")))),
            entry(Some(("linux", "arm64", Some("v8")))),
            entry(Some(("linux", "amd64", None))),
            entry(None),
        ];
        let chosen = |text: &str| {
            let wanted: Platform = text.parse().unwrap();
            choose(&entries, &wanted).and_then(|entry| entry.platform.clone())
        };
        for (wanted, expected) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/arm/v7", Some("linux/arm/v6")),
            ("linux/arm/v5", Some("linux/arm/v5")),
            ("linux/arm64", Some("linux/arm64/v8")),
            ("linux/s390x", None),
            ("windows/amd64", None),
        ] {
            let got = chosen(wanted).map(|platform| platform.to_string());
            assert_eq!(got.as_deref(), expected, "{wanted}");
        }
        assert_eq!(offered(&entries), "linux/arm/v5, linux/arm/v6, linux/arm64/v8, linux/amd64");
        assert!(choose(&entries[5..], &Platform::host()).is_some());
        assert!(choose(&entries[..1], &Platform::host()).is_none());
    }
}
