//! What is said of an image beside it, as docker's readers and registries look for it.

mod support;

use boatyard_oci::Digest;
use serde_json::Value;
use support::place::text;
use support::server::Server;
use support::{Place, images};

const EPOCH: &str = "1700000000";

/// Builds on busybox, with a database of dpkg that a RUN step changes, and returns the manifests.
fn build(place: &Place, options: &[&str]) -> Value {
    images::busybox(place);
    let status = "Package: tool\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0-1\n\n\
        Package: removed\nStatus: deinstall ok config-files\nVersion: 1\n";
    let context = place.context(
        "app",
        "FROM busybox\nARG WHO=nobody\nCOPY status /var/lib/dpkg/status\n\
         RUN --mount=type=secret,id=token echo $WHO > /who && cat /run/secrets/token | wc -c > /length\n",
    );
    place.write("app/status", status);
    let secret = format!("id=token,src={}", text(&place.write("token", "very-secret-value")));
    let fixed = ["build", "-q", "--network=none", "-t", "app", "--build-arg", "WHO=me"];
    let run = place.boatyard(fixed).args(["--secret", &secret]).args(options);
    run.env("SOURCE_DATE_EPOCH", EPOCH).arg(text(&context)).ok();
    place.boatyard(["inspect", "--raw", "app"]).ok().json()
}

#[test]
fn dockers_readers_find_them_in_the_index() {
    let place = Place::new();
    let plain = build(&place, &[]);
    assert!(plain["layers"].is_array(), "nothing is said unless it is asked for");
    let plain = place.boatyard(["inspect", "--raw", "app"]).ok().stdout;
    let index = build(&place, &["--provenance=max", "--sbom"]);
    let [image, attestation] = &index["manifests"].as_array().unwrap()[..] else {
        panic!("{index}");
    };
    assert_eq!(image["digest"], Digest::sha256(&plain).to_string(), "the image is the same");
    assert_eq!(
        attestation["platform"],
        serde_json::json!({"architecture": "unknown", "os": "unknown"})
    );
    assert_eq!(attestation["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(attestation["annotations"]["vnd.docker.reference.digest"], image["digest"]);

    // skopeo reads the whole as it is written.
    let layout = place.path("layout");
    let output = format!("type=oci,tar=false,dest={}", text(&layout));
    build(&place, &["--provenance=max", "--sbom", "--output", &output]);
    let from = format!("oci:{}", text(&layout));
    let to = format!("dir:{}", text(&place.path("copy")));
    place.run("skopeo", ["--insecure-policy", "copy", "--all", &from, &to]).ok();
    let read = |digest: &Value| {
        let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
        let bytes = fs_err::read(layout.join("blobs/sha256").join(hex)).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    let manifest = read(&attestation["digest"]);
    assert_eq!(manifest["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
    assert_eq!(manifest["subject"]["digest"], image["digest"]);
    let layers = manifest["layers"].as_array().unwrap();
    for (layer, kind) in
        layers.iter().zip(["https://spdx.dev/Document", "https://slsa.dev/provenance/v1"])
    {
        assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
        assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], kind);
        let statement = read(&layer["digest"]);
        assert_eq!(statement["predicateType"], kind);
        assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
        let digest =
            format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().unwrap());
        assert_eq!(image["digest"], digest);
    }
    // What docker loads is the image alone.
    let archive = place.path("docker.tar");
    let output = format!("type=docker,dest={}", text(&archive));
    build(&place, &["--sbom", "--output", &output]);
    let config =
        place.run("skopeo", ["inspect", "--config", &format!("docker-archive:{}", text(&archive))]);
    assert_eq!(config.ok().json()["architecture"], image["platform"]["architecture"]);
}

#[test]
fn provenance_says_what_was_used_and_no_secret() {
    let place = Place::new();
    build(&place, &["--provenance=max"]);
    let shown = place.boatyard(["inspect", "--provenance", "app"]).ok();
    assert!(!shown.text().contains("very-secret-value"), "{shown}");
    let max = shown.json();
    let build_definition = &max["buildDefinition"];
    let request = &build_definition["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:WHO"], "me");
    assert_eq!(request["secrets"], serde_json::json!([{"id": "token"}]));
    let base = &build_definition["resolvedDependencies"][0];
    assert!(
        base["uri"].as_str().unwrap().starts_with("pkg:docker/busybox@latest?platform="),
        "{base}"
    );
    let manifest = place.boatyard(["inspect", "--raw", "busybox"]).ok().stdout;
    assert_eq!(base["digest"]["sha256"], Digest::sha256(&manifest).hex());
    let steps = build_definition["internalParameters"]["buildConfig"]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2, "{steps:?}");
    assert_eq!((&steps[0]["line"], &steps[1]["line"]), (&3.into(), &4.into()));
    let metadata = &max["runDetails"]["metadata"];
    assert_eq!(metadata["startedOn"], "2023-11-14T22:13:20Z");
    assert!(metadata["buildkit_metadata"]["source"]["infos"][0]["data"].is_string());

    build(&place, &["--provenance"]);
    let min = place.boatyard(["inspect", "--provenance", "app"]).ok().json();
    assert!(min["buildDefinition"]["externalParameters"]["request"]["args"].is_null());
    assert!(min["buildDefinition"]["internalParameters"]["buildConfig"].is_null());
    assert!(min["runDetails"]["metadata"]["buildkit_metadata"]["source"].is_null());
    assert_eq!(min["buildDefinition"]["resolvedDependencies"][0], *base);
    place.boatyard(["inspect", "--sbom", "app"]).fails(1).says(["the image app has no SBOM"]);
}

#[test]
fn the_same_build_says_the_same_and_a_registry_passes_it_on() {
    let place = Place::new();
    let cached = build(&place, &["--provenance=max", "--sbom"]);
    let again = build(&place, &["--provenance=max", "--sbom", "--no-cache"]);
    assert_eq!(cached, again, "with an epoch, whatever was cached");

    let sbom = place.boatyard(["inspect", "--sbom", "app"]).ok().json();
    assert_eq!(sbom["spdxVersion"], "SPDX-2.3");
    let names: Vec<&Value> =
        sbom["packages"].as_array().unwrap().iter().map(|package| &package["name"]).collect();
    assert_eq!(names, ["app:latest", "tool"]);
    let url = &sbom["packages"][1]["externalRefs"][0]["referenceLocator"];
    assert_eq!(url, "pkg:deb/tool@1.0-1?arch=amd64");

    let server = Server::start(&place);
    let name = format!("{}/team/app:1", server.address());
    place.boatyard(["push", "app", &name]).ok();
    let elsewhere = place.path("elsewhere");
    for what in ["--sbom", "--provenance"] {
        let there = place.boatyard_at(&elsewhere, ["inspect", what, &name]).ok().json();
        assert_eq!(there, place.boatyard(["inspect", what, "app"]).ok().json());
    }
    // Who knows only the image's digest finds them among its referrers.
    let image = cached["manifests"][0]["digest"].as_str().unwrap();
    let by_digest = format!("{}/team/app@{image}", server.address());
    let there = place.boatyard_at(&elsewhere, ["inspect", "--sbom", &by_digest]).ok().json();
    assert_eq!(there, sbom);
}

#[test]
fn the_sbom_lists_what_rpm_lists() {
    let place = Place::new();
    // A header that is larger than a page of the database.
    let description = "greets again\n".repeat(2000);
    let spec = format!(
        "Name: greet\nVersion: 1.0\nRelease: 2\nEpoch: 3\nSummary: greets\nLicense: MIT\n\
         BuildArch: noarch\n%description\n{description}%package small\nSummary: greets\n\
         %description small\ngreets\n%files\n%files small\n"
    );
    let spec = place.write("greet.spec", spec);
    let top = format!("_topdir {}", text(&place.path("top")));
    place.run("rpmbuild", ["-bb", "--define", &top, text(&spec)]).ok();
    let tree = place.path("listed/tree");
    fs_err::create_dir_all(&tree).unwrap();
    let rpm = ["--define", "_db_backend sqlite", "--root", text(&tree), "--dbpath", "/var/lib/rpm"];
    let install = ["-i", "--nodeps", "--justdb", "--noscripts"];
    let packages = fs_err::read_dir(place.path("top/RPMS/noarch")).unwrap();
    let packages = packages.map(|entry| entry.unwrap().path());
    place.run("rpm", rpm).args(install).args(packages).ok();
    let format = "%{NAME} %{VERSION}-%{RELEASE} %{EPOCH} %{ARCH}\\n";
    let query = place.run("rpm", rpm).args(["-qa", "--qf", format]).ok().text();
    let mut known: Vec<String> = query.lines().map(str::to_owned).collect();
    assert_eq!(known.len(), 2, "{query}");

    let context = place.context("listed", "FROM scratch\nCOPY tree /\n");
    place.boatyard(["build", "-q", "--sbom", "-t", "listed", text(&context)]).ok();
    let sbom = place.boatyard(["inspect", "--sbom", "listed"]).ok().json();
    let packages = sbom["packages"].as_array().unwrap().iter().skip(1);
    let mut listed: Vec<String> = packages
        .map(|package| {
            let text = |key: &str| package[key].as_str().unwrap().to_owned();
            let url = package["externalRefs"][0]["referenceLocator"].as_str().unwrap();
            let value = |key: &str| {
                let rest = url.split_once(&format!("{key}=")).unwrap().1;
                rest.split('&').next().unwrap().to_owned()
            };
            let version = text("versionInfo");
            format!("{} {version} {} {}", text("name"), value("epoch"), value("arch"))
        })
        .collect();
    listed.sort();
    known.sort();
    assert_eq!(listed, known);
}
