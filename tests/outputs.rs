//! Where a build goes, and in which form: several outputs at once, as others read them.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::place::text;
use support::{Place, Run, Server, images};

/// Returns a place whose root has the image `busybox`, and a context that builds on it.
fn place() -> (Place, PathBuf) {
    let place = Place::new();
    images::busybox(&place);
    let context = place.context(
        "app",
        "FROM busybox\nCOPY file /file\nRUN echo made > /made\n\
         HEALTHCHECK --interval=5s --retries=2 CMD [\"true\"]\nSTOPSIGNAL SIGINT\n\
         VOLUME /data\nEXPOSE 80 53/udp\nLABEL a=b\nSHELL [\"/bin/sh\", \"-ec\"]\nCMD cat /made\n",
    );
    place.write("app/file", images::noise(1, 100_000));
    (place, context)
}

fn build<const N: usize>(place: &Place, context: &Path, options: [&str; N]) -> Run {
    place.boatyard(["build", "--progress=plain", text(context)]).args(options)
}

fn output(place: &Place, kind: &str, name: &str) -> String {
    format!("--output={kind},dest={}", text(&place.path(name)))
}

fn raw(place: &Place, transport: &str, name: &str) -> Value {
    let image = format!("{transport}:{}", text(&place.path(name)));
    place.run("skopeo", ["inspect", "--raw", &image]).ok().json()
}

fn blobs(place: &Place) -> usize {
    let shards = fs_err::read_dir(place.root().join("blobs/sha256")).unwrap();
    shards.map(|shard| fs_err::read_dir(shard.unwrap().path()).unwrap().count()).sum()
}

#[test]
fn several_outputs_at_once_each_in_its_form() {
    let (place, context) = place();
    let outputs = [
        output(&place, "type=oci,compression=zstd,compression-level=5", "zstd.tar"),
        output(&place, "type=oci,tar=false,oci-mediatypes=false", "layout"),
        output(&place, "type=docker,compression=uncompressed", "docker.tar"),
        output(&place, "type=tar", "files.tar"),
        output(&place, "type=local", "files"),
    ];
    build(&place, &context, ["-t", "app:1"]).args(&outputs).ok();
    let types = |manifest: &Value| {
        let layers = manifest["layers"].as_array().unwrap().iter();
        let of = |blob: &Value| {
            let text = blob["mediaType"].as_str().unwrap();
            text.rsplit_once("application/vnd.").unwrap().1.to_owned()
        };
        let own = manifest["mediaType"].as_str().unwrap().rsplit_once("vnd.").unwrap().1.to_owned();
        [own, of(&manifest["config"])].into_iter().chain(layers.map(of)).collect::<Vec<_>>()
    };
    // The base's layer stays what it is.
    let zstd = raw(&place, "oci-archive", "zstd.tar");
    let (gzip, zstd_layer) = ("oci.image.layer.v1.tar+gzip", "oci.image.layer.v1.tar+zstd");
    assert_eq!(
        types(&zstd),
        ["oci.image.manifest.v1+json", "oci.image.config.v1+json", gzip, zstd_layer, zstd_layer]
    );
    let docker_layer = "docker.image.rootfs.diff.tar.gzip";
    let read = |path: &str| {
        let bytes = fs_err::read(place.path("layout").join(path)).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    let digest = read("index.json")["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    let docker = read(&format!("blobs/{digest}"));
    assert_eq!(
        types(&docker),
        [
            "docker.distribution.manifest.v2+json",
            "docker.container.image.v1+json",
            docker_layer,
            docker_layer,
            docker_layer
        ]
    );
    let config = |transport: &str, name: &str| -> Value {
        let image = format!("{transport}:{}", text(&place.path(name)));
        place.run("skopeo", ["inspect", "--config", "--raw", &image]).ok().json()
    };
    let expected = config("oci-archive", "zstd.tar");
    let digest = docker["config"]["digest"].as_str().unwrap().replace(':', "/");
    assert_eq!(read(&format!("blobs/{digest}")), expected, "one image, whatever its form");
    assert_eq!(config("docker-archive", "docker.tar"), expected);
    let run = &expected["config"];
    assert_eq!(run["Healthcheck"]["Interval"], 5_000_000_000_u64);
    assert_eq!(run["Healthcheck"]["Test"], serde_json::json!(["CMD", "true"]));
    assert_eq!(run["StopSignal"], "SIGINT");
    assert_eq!(run["Volumes"], serde_json::json!({"/data": {}}));
    assert_eq!(run["ExposedPorts"], serde_json::json!({"53/udp": {}, "80/tcp": {}}));
    assert_eq!(run["Cmd"], serde_json::json!(["/bin/sh", "-ec", "cat /made"]));
    assert_eq!(run["ArgsEscaped"], true);
    let history = expected["history"].as_array().unwrap();
    let layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(layers, expected["rootfs"]["diff_ids"].as_array().unwrap().len());
    assert_eq!(fs_err::read_to_string(place.path("files/made")).unwrap(), "made\n");
    let listed = place.run("tar", ["-tf", text(&place.path("files.tar"))]).ok().text();
    assert!(listed.lines().any(|line| line == "made"), "{listed}");
}

#[test]
fn what_was_packed_once_is_not_packed_again() {
    let (place, context) = place();
    let zstd = output(&place, "type=oci,compression=zstd", "one.tar");
    build(&place, &context, []).arg(&zstd).ok();
    let gzip = output(&place, "type=oci", "two.tar");
    build(&place, &context, []).arg(&gzip).ok();
    let packed = blobs(&place);
    build(&place, &context, []).arg(&zstd).ok();
    build(&place, &context, []).arg(&gzip).ok();
    assert_eq!(blobs(&place), packed);
    let forced = output(&place, "type=oci,compression=zstd,force-compression=true", "three.tar");
    build(&place, &context, []).arg(&forced).ok();
    let manifest = raw(&place, "oci-archive", "three.tar");
    let layers = manifest["layers"].as_array().unwrap();
    let is_zstd = |layer: &Value| layer["mediaType"].as_str().unwrap().ends_with("+zstd");
    assert!(layers.iter().all(is_zstd), "{manifest}");
    place.boatyard(["load", "-i", text(&place.path("three.tar"))]).ok();
}

#[test]
fn annotations_stand_where_they_are_meant() {
    let (place, context) = place();
    let layout = output(&place, "type=oci,tar=false,annotation-index.own=1", "layout");
    build(&place, &context, ["--target=none", "-f", "-", "--annotation=all=1"])
        .input("FROM scratch AS none\nLABEL x=y\n")
        .args(["--platform=linux/amd64,linux/arm64", "--annotation=manifest[linux/arm64]:arm=2"])
        .args(["--annotation=manifest-descriptor:listed=3", "--annotation=index-descriptor:top=4"])
        .args(["-t", "app", &layout])
        .ok();
    let read = |path: &str| {
        let bytes = fs_err::read(place.path("layout").join(path)).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        read(&format!("blobs/{}", digest.replace(':', "/")))
    };
    let top = &read("index.json")["manifests"][0];
    assert_eq!(top["annotations"]["top"], "4");
    let index = blob(top);
    assert_eq!(index["annotations"], serde_json::json!({"own": "1"}));
    let [amd64, arm64] = [0, 1].map(|place| &index["manifests"][place]);
    assert_eq!(amd64["annotations"], serde_json::json!({"listed": "3"}));
    assert_eq!(blob(amd64)["annotations"], serde_json::json!({"all": "1"}));
    assert_eq!(blob(arm64)["annotations"], serde_json::json!({"all": "1", "arm": "2"}));
    let wrong = build(&place, &context, ["--annotation=index:a=b"]).fails(2);
    wrong.says(["an image for one platform has no index to annotate"]);
    let wrong = build(&place, &context, ["--annotation=indx:a=b"]).fails(2);
    wrong.says(["`indx` is no level of annotations: did you mean `index`?"]);
}

#[test]
fn pushed_by_name_and_by_digest() {
    let (place, context) = place();
    let server = Server::start(&place);
    let name = |name: &str| format!("{}/{name}", server.address());
    let metadata = place.path("metadata.json");
    let by_digest =
        format!("--output=type=image,push-by-digest=true,push=true,name={}", name("digests"));
    let both = format!("--output=type=registry,\"name={},{}\"", name("a:1"), name("b:2"));
    let docker = format!("--output=type=registry,oci-mediatypes=0,name={}", name("docker"));
    build(&place, &context, ["--metadata-file", text(&metadata)])
        .args(["--platform=linux/amd64", "--build-arg=BUILDKIT_MULTI_PLATFORM=1"])
        .args([&by_digest, &both, &docker])
        .ok();
    let metadata: Value = serde_json::from_slice(&fs_err::read(metadata).unwrap()).unwrap();
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    assert_eq!(metadata["boatyard.compatibility"], 1);
    let inspect = |image: &str| {
        let image = format!("docker://{image}");
        place.run("skopeo", ["inspect", "--raw", "--tls-verify=false", &image]).ok().json()
    };
    for image in [name("a:1"), name("b:2"), name(&format!("digests@{digest}"))] {
        let index = inspect(&image);
        assert_eq!(index["manifests"][0]["platform"]["architecture"], "amd64", "{image}");
    }
    let list = inspect(&name("docker"));
    assert_eq!(list["mediaType"], "application/vnd.docker.distribution.manifest.list.v2+json");
    let tags = format!("docker://{}", name("digests"));
    let tags = place.run("skopeo", ["list-tags", "--tls-verify=false", &tags]).ok().json();
    assert_eq!(tags["Tags"], serde_json::json!([]));
}

#[test]
fn nothing_is_kept_of_what_is_built_for_the_cache() {
    let (place, context) = place();
    build(&place, &context, ["-t", "app", "--output=type=cacheonly"]).ok();
    let listed = place.boatyard(["images", "--format=json"]).ok().text();
    assert!(!listed.contains("\"app\""), "{listed}");
    build(&place, &context, ["--output=type=image,name=other:1,store=true"]).ok();
    let listed = place.boatyard(["images", "--format=json"]).ok().text();
    assert!(listed.contains("\"other\""), "{listed}");
}

#[test]
fn mistakes_are_told_before_anything_runs() {
    let (place, context) = place();
    for (options, expected) in [
        (vec!["-o", "type=oci,compresion=zstd"], "did you mean `compression`?"),
        (vec!["-o", "type=docker,dest=x", "--platform=linux/amd64,linux/arm64"], "one platform"),
        (vec!["-o", "type=oci", "-o", "-"], "only one output can go to standard output"),
        (vec!["--push"], "--push needs to know where to"),
        (vec!["--compression-level=30"], "the level is a number from 1 to 12"),
        (vec!["--compatibility=7"], "this version of Boatyard knows level 1 only"),
        (
            vec![
                "-o",
                "type=oci,dest=a,rewrite-timestamp=false",
                "-o",
                "type=oci,dest=b,rewrite-timestamp",
            ],
            "rewrite-timestamp is one for all outputs",
        ),
    ] {
        let failed = build(&place, &context, []).args(options).fails(2);
        failed.says([expected]);
    }
    let front_end = ["--build-arg=BUILDKIT_SYNTAX=registry.example/front:1"];
    let failed = build(&place, &context, front_end).fails(1);
    failed.says(["asks for a front end that is not supported"]);
    let syntax =
        "# syntax=docker.io/docker/dockerfile-upstream:master-labs\nFROM scratch\nLABEL a=b\n";
    build(&place, &context, ["-f", "-"]).input(syntax).ok();
}
