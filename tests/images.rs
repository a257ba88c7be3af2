//! The commands that handle images, as a person runs them; with skopeo and podman as judges, which
//! must be installed.

#[cfg(test)]
#[path = "images/machine.rs"]
mod machine;

use machine::Machine;

#[test]
fn an_image_is_imported_named_shown_and_forgotten() {
    let machine = Machine::new();
    let id = machine.import("app:1");
    machine.run(&["tag", "app:1", "registry.example/team/app:2"]).silent();
    let head = machine.run(&["images"]).lines()[0].clone();
    assert_eq!(
        head.split_whitespace().collect::<Vec<_>>().join(" "),
        "REPOSITORY TAG IMAGE ID CREATED SIZE"
    );
    let ids = machine.run(&["images", "-q", "--no-trunc"]).lines();
    assert_eq!(ids, [id.clone(), id.clone()]);
    assert_eq!(machine.run(&["images", "-q", "app"]).lines().len(), 1);
    let inspected = machine.run(&["inspect", &id[7..12]]).json();
    assert_eq!(inspected[0]["Id"], id.as_str());
    assert_eq!(
        inspected[0]["RepoTags"],
        serde_json::json!(["app:1", "registry.example/team/app:2"])
    );
    assert_eq!(inspected[0]["Config"]["Cmd"], serde_json::json!(["/bin/sh"]));
    let config = machine.run(&["inspect", "--raw-config", "app:1"]).json();
    assert_eq!(config["history"][0]["comment"], "from a test");
    let history = machine.run(&["history", "app:1"]).lines();
    assert!(history[1].starts_with(&id[7..19]) && history[1].ends_with("from a test"));

    let several = machine.run(&["rmi", &id[7..19]]).fails(1);
    assert!(several.contains("app:1, registry.example/team/app:2"), "{several}");
    assert_eq!(machine.run(&["rmi", "app:1"]).lines()[0], "Untagged: app:1");
    machine.run(&["rmi", "registry.example/team/app:2"]).ok();
    assert_eq!(machine.run(&["images"]).lines().len(), 1);
    let freed = machine.run(&["gc", "--grace", "0", "--dry-run"]).lines();
    assert!(freed[0].starts_with("Would free") && freed[0].ends_with("in 3 blobs"), "{freed:?}");
    machine.run(&["gc", "--grace", "0"]).ok();
    assert_eq!(machine.run(&["fsck"]).lines(), ["0 blobs, 0B: all is well"]);
}

#[test]
fn what_is_not_there_is_answered_with_what_is() {
    let machine = Machine::new();
    let none = machine.run(&["inspect", "app"]).fails(1);
    assert!(none.contains("there is no image docker.io/library/app:latest"), "{none}");
    assert!(none.contains("hint: there are none yet"), "{none}");
    machine.import("registry.example/team/app:1.0");
    let near = "hint: did you mean `registry.example/team/app:1.0`?";
    for asked in ["registry.example/team/ap:1.0", "registry.example/team/app", "app"] {
        let error = machine.run(&["save", asked]).fails(1);
        assert!(error.contains(near), "{error}");
    }
    let bad = machine.run(&["tag", "app", "Bad Name"]).fails(2);
    assert!(bad.contains("`Bad Name` is no image name"), "{bad}");
}

#[test]
fn archives_carry_an_image_from_one_machine_to_another() {
    let from = Machine::new();
    let id = from.import("app:1");
    for format in ["docker-archive", "oci-archive"] {
        let file = from.path(format);
        from.run(&["save", "--format", format, "-o", &file, "app:1"]).silent();
        let to = Machine::new();
        assert_eq!(to.run(&["load", "-i", &file]).lines(), ["Loaded image: app:1"]);
        assert_eq!(to.run(&["images", "-q", "--no-trunc"]).lines(), std::slice::from_ref(&id));
        assert_eq!(to.run(&["fsck"]).lines().len(), 1);
        // By its ID it has no name, and `load` says how to give it one.
        from.run(&["save", "--format", format, "-o", &file, &id]).silent();
        let to = Machine::new();
        to.run(&["load", "-q", "-i", &file, "--tag", "mine"]).silent();
        assert_eq!(to.run(&["images", "-q", "mine"]).lines().len(), 1);
    }
    let broken = from.path("broken");
    fs_err::write(&broken, "not an archive").unwrap();
    let error = from.run(&["load", "-i", &broken]).fails(1);
    assert!(error.contains(&format!("cannot load {broken}")), "{error}");
}

#[test]
fn skopeo_and_podman_read_what_is_saved_and_are_read() {
    let machine = Machine::new();
    let id = machine.import("app:1");
    let (docker, oci) = (machine.path("docker.tar"), machine.path("oci.tar"));
    machine.run(&["save", "-o", &docker, "app:1"]).silent();
    machine.run(&["save", "--format", "oci-archive", "-o", &oci, "app:1"]).silent();
    for archive in [format!("docker-archive:{docker}"), format!("oci-archive:{oci}")] {
        let config = machine.client("skopeo", &["inspect", "--config", &archive]).json();
        assert_eq!(config["config"]["Cmd"], serde_json::json!(["/bin/sh"]), "{archive}");
    }
    for file in [&docker, &oci] {
        let loaded = machine.podman(&["load", "-i", file]).lines();
        assert_eq!(loaded.last().unwrap(), "Loaded image: docker.io/library/app:1");
    }
    let theirs = machine.podman(&["images", "-q", "--no-trunc"]).lines();
    assert_eq!(theirs, std::slice::from_ref(&id), "podman has the same image ID");
    for format in ["docker-archive", "oci-archive"] {
        let file = machine.path(&format!("podman-{format}"));
        machine.podman(&["save", "--format", format, "-o", &file, "app:1"]).ok();
        let other = Machine::new();
        assert_eq!(other.run(&["load", "-i", &file]).lines(), ["Loaded image: app:1"]);
        assert_eq!(other.run(&["images", "-q", "--no-trunc"]).lines(), std::slice::from_ref(&id));
    }
}

#[test]
fn a_registry_carries_an_image_from_one_machine_to_another() {
    let registry = machine::Registry::start();
    let from = Machine::new();
    let id = from.import("app:1");
    let name = format!("{}/team/app:1", registry.address);
    let pushed = from.run(&["push", "app:1", &name]);
    assert!(pushed.errors.contains("pushed"), "{}", pushed.errors);
    let pushed = pushed.lines();
    assert!(pushed[0].starts_with(&format!("{name}: digest: sha256:")), "{pushed:?}");
    let again = from.run(&["push", "app:1", &name]);
    assert!(again.errors.contains("already there"), "{}", again.errors);

    let to = Machine::new();
    let pulled = to.run(&["pull", &name]).lines();
    assert_eq!(pulled[1], format!("Status: Downloaded newer image for {name}"));
    assert_eq!(to.run(&["images", "-q", "--no-trunc"]).lines(), [id]);
    let again = to.run(&["pull", &name]).lines();
    assert_eq!(again[1], format!("Status: Image is up to date for {name}"));
    to.run(&["pull", "-q", &name]).ok();

    let missing = format!("{}/team/other", registry.address);
    let error = to.run(&["pull", &missing]).fails(1);
    assert!(error.contains("it is not there"), "{error}");
    drop(registry);
    let error = to.run(&["pull", &name]).fails(1);
    assert!(error.contains("is the registry running?"), "{error}");
}

#[test]
fn a_login_is_kept_where_only_its_user_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let registry = machine::Registry::start();
    let machine = Machine::new();
    let login = ["login", "-u", "me", "--password-stdin", &registry.address];
    let output = machine.run_with(&login, b"secret\n");
    assert!(output.errors.contains("asks nobody for credentials"), "{}", output.errors);
    output.ok();
    let file = machine.home().join(".config/boatyard/auth.json");
    assert_eq!(fs_err::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs_err::read_to_string(&file).unwrap().contains("bWU6c2VjcmV0"));
    machine.run(&["logout", &registry.address]).ok();
    assert!(!fs_err::read_to_string(&file).unwrap().contains("bWU6c2VjcmV0"));
    let nobody = machine.run(&["login", &registry.address]).fails(2);
    assert!(nobody.contains("there is nobody to ask"), "{nobody}");
}

#[test]
fn of_several_platforms_the_ones_that_are_here_travel() {
    let registry = machine::Registry::start();
    let from = Machine::new();
    from.import_for("arm:1", "linux/arm64");
    let amd64 = from.import("amd:1");
    from.index("app:1", &[("amd:1", "linux/amd64"), ("arm:1", "linux/arm64")]);
    let name = format!("{}/app:1", registry.address);
    let whole = from.run(&["push", "app:1", &name]).lines();

    let to = Machine::new();
    to.run(&["pull", "--platform", "linux/amd64", &name]).ok();
    let shown = to.run(&["images", "--format", "json"]).json();
    assert_eq!(shown["ID"], amd64.as_str());
    assert_eq!(to.run(&["fsck"]).lines().len(), 1, "nothing is missing");
    let other = to.run(&["inspect", "--platform", "linux/arm64", &name]).fails(1);
    assert!(
        other.contains("there is no image for linux/arm64 here, only for linux/amd64"),
        "{other}"
    );
    let copy = format!("{}/copy:1", registry.address);
    to.run(&["tag", &name, &copy]).silent();
    let part = to.run(&["push", "--platform", "linux/amd64", &copy]);
    assert!(part.errors.contains("mounted"), "{}", part.errors);
    part.ok();
    let file = to.path("app.tar");
    to.run(&["save", "--platform", "linux/amd64", "-o", &file, &name]).silent();

    to.run(&["pull", "--all-platforms", &name]).ok();
    let again = to.run(&["push", &copy]).lines();
    assert_eq!(again[0].split("digest").last(), whole[0].split("digest").last());
    to.run(&["rmi", &name, &copy]).ok();
    assert_eq!(to.run(&["images"]).lines().len(), 1);
    let gone = to.run(&["gc", "--grace", "0"]).lines();
    assert_eq!(gone[1], "0B in 0 blobs stay");
}
