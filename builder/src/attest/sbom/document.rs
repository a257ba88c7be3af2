//! The document: SPDX 2.3, as JSON.
//!
//! Of the same image it is always the same: it is dated as the image is, and its namespace is made of
//! what it says.

use boatyard_oci::Digest;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::package::Package;
use super::scan::Found;
use crate::image::Image;

const NONE: &str = "NOASSERTION";
const IMAGE: &str = "SPDXRef-Image";

/// Returns the document.
pub(super) fn document(image: &Image, name: Option<&str>, found: &Found) -> Value {
    let created = image.config.value().created.unwrap_or(Timestamp::UNIX_EPOCH);
    // SPDX has whole seconds.
    let created = Timestamp::from_second(created.as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
    let id = image.id().to_string();
    let mut packages = vec![json!({
        "name": name.unwrap_or(&id),
        "SPDXID": IMAGE,
        "versionInfo": id,
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
    })];
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
    for package in &found.packages {
        let url = package.url(found.distribution.as_ref());
        let identity = Digest::sha256(format!("{url}\n{}", package.found_in).as_bytes());
        let reference = format!("SPDXRef-Package-{}-{}", package.kind.name(), identity.short());
        relationships.push(relationship(IMAGE, "CONTAINS", &reference));
        packages.push(one(package, &url, &reference));
    }
    let said = json!([packages, relationships]).to_string();
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name.unwrap_or(&id),
        "documentNamespace": format!("urn:boatyard:sbom:{}", Digest::sha256(said.as_bytes())),
        "creationInfo": {
            "created": created.to_string(),
            "creators": [format!("Tool: boatyard-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relationships,
    })
}

fn one(package: &Package, url: &str, reference: &str) -> Value {
    let mut value = json!({
        "name": package.name,
        "SPDXID": reference,
        "versionInfo": package.version,
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "sourceInfo": format!("found in {}", package.found_in),
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": url,
        }],
    });
    // What packages say is rarely an expression of SPDX.
    if let Some(license) = &package.license {
        value["licenseComments"] = format!("the package says: {license}").into();
    }
    value
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}
