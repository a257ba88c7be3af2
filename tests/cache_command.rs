//! What builds keep, as a person sees and removes it, and what of an image is there in vain.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::place::text;
use support::process::Ran;
use support::{Place, images};

/// A blob that nobody needs is freed at once.
const AT_ONCE: &str = "[gc]\ngrace_seconds = 0\n";

/// A place with the image `busybox` and a configuration.
struct Yard {
    place: Place,
    config: PathBuf,
}

impl Yard {
    fn new(config: &str) -> Yard {
        let place = Place::new();
        let tree = images::busybox_tree(&place);
        let archive = images::archive(&place, &tree, "busybox.tar");
        place.boatyard(["import", "-c", "ENV PATH=/bin", text(&archive), "busybox"]).ok();
        let config = place.write("boatyard.toml", config);
        Yard { place, config }
    }

    fn run<const N: usize>(&self, args: [&str; N]) -> Ran {
        self.place.boatyard(args).args(["--config", text(&self.config)]).ok()
    }

    /// Builds a Dockerfile without a name for the result; returns what was said.
    fn build(&self, name: &str, dockerfile: &str) -> String {
        let context = self.place.context(name, dockerfile);
        self.run(["build", "--progress", "plain", text(&context)]).stderr
    }

    /// The lines of `cache list` whose instruction begins like this.
    fn steps(&self, beginning: &str) -> Vec<Value> {
        let listed = self.run(["cache", "list", "--json"]).text();
        let rows = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.filter(|row| row["Instruction"].as_str().unwrap().starts_with(beginning)).collect()
    }

    /// The bytes of all rows of `cache list`.
    fn listed_bytes(&self) -> u64 {
        self.steps("").iter().map(|row| row["Bytes"].as_u64().unwrap()).sum()
    }

    /// The bytes of the files of which the cache gives an account.
    fn bytes_on_disk(&self) -> u64 {
        let parts = ["blobs", "contents", "cache/records", "cache/layers", "cache/inputs"];
        parts.iter().map(|part| bytes_below(&self.place.root().join(part))).sum()
    }
}

fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = fs_err::read_dir(directory) else { return 0 };
    let sizes = entries.map(|entry| {
        let (path, metadata) =
            entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
        if metadata.is_dir() { bytes_below(&path) } else { metadata.len() }
    });
    sizes.sum()
}

/// How many RUN and COPY were found.
fn cached(said: &str) -> usize {
    let is_step = |line: &&str| line.contains("] RUN ") || line.contains("] COPY ");
    let steps = said.lines().filter(is_step).filter_map(|line| line.split(' ').next());
    steps.filter(|step| said.contains(&format!("\n{step} CACHED"))).count()
}

#[test]
fn prune_frees_what_it_says_and_leaves_what_an_image_has() {
    let yard = Yard::new(AT_ONCE);
    let app = "FROM busybox\nRUN head -c 300000 /dev/urandom > /random\nRUN echo small > /small\n";
    yard.build("app", app);
    let [random] = &yard.steps("RUN head")[..] else { panic!("one step") };
    assert!((300_000..310_000).contains(&random["Bytes"].as_u64().unwrap()), "{random}");
    assert_eq!((&random["Kind"], &random["Shared"]), (&json!("step"), &json!(false)));
    assert_eq!((&random["Line"], &random["Stage"]), (&json!(2), &json!("stage-0")));
    let named = yard.place.context("named", "FROM busybox\nRUN echo named > /named\n");
    yard.run(["build", "-q", "-t", "named", text(&named)]);
    let [named] = &yard.steps("RUN echo named")[..] else { panic!("one step") };
    assert_eq!((&named["Bytes"], &named["Shared"]), (&json!(0), &json!(true)));

    // What the records need is no garbage.
    yard.run(["gc", "--layers", "0"]);
    assert_eq!(cached(&yard.build("app", app)), 2);

    let (listed, before) = (yard.listed_bytes(), yard.bytes_on_disk());
    let would = yard.run(["cache", "prune", "--dry-run"]).text();
    assert_eq!(yard.bytes_on_disk(), before);
    let did = yard.run(["cache", "prune"]).text();
    assert_eq!(did, would.replace("Would free", "Freed"));
    assert!(did.contains("RUN head -c 300000 /dev/urandom"), "{did}");
    assert_eq!(before - yard.bytes_on_disk(), listed);
    assert_eq!(yard.steps("RUN").len(), 1);
    assert_eq!(yard.steps("RUN echo named").len(), 1, "an image has it: it frees nothing");
    assert_eq!(yard.run(["cache", "prune"]).text(), "Freed 0B");
    assert_eq!(cached(&yard.build("app", app)), 0);

    // Young blobs stay for the grace period, and it is said.
    let patient = yard.place.write("patient.toml", "[gc]\ngrace_seconds = 7200\n");
    let prune = ["cache", "prune", "--config", text(&patient)];
    let said = yard.place.boatyard(prune).ok().text();
    assert!(said.contains("kB more are younger than 2 hours"), "{said}");
    yard.run(["cache", "prune", "--all"]);
    assert_eq!(yard.steps("").len(), 0, "all is gone, and what was given up before, too");
    yard.run(["fsck"]);
}

#[test]
fn what_is_chosen_to_be_pruned_is_the_oldest() {
    let yard = Yard::new(AT_ONCE);
    for number in ["1", "2", "3"] {
        yard.build(number, &format!("FROM busybox\nRUN head -c 100000 /dev/urandom > /{number}\n"));
    }
    assert_eq!(yard.run(["cache", "prune", "--older-than", "1h"]).text(), "Freed 0B");
    yard.run(["cache", "prune", "--keep-size", "220kB"]);
    let left = yard.steps("RUN");
    let left: Vec<_> = left.iter().map(|row| row["Instruction"].as_str().unwrap()).collect();
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|text| !text.ends_with("/1")), "{left:?}");
    yard.place.boatyard(["cache", "prune", "--keep-size", "many"]).fails(2).says(["is no size"]);
}

#[test]
fn limits_work_by_themselves() {
    let yard = Yard::new(&format!("{AT_ONCE}[cache]\nmax_size = '250kB'\nmin_free = 'none'\n"));
    let build = |number: &str| {
        let dockerfile = format!("FROM busybox\nRUN head -c 200000 /dev/urandom > /{number}\n");
        cached(&yard.build(number, &dockerfile))
    };
    build("1");
    assert_eq!(build("1"), 1, "it fits");
    build("2");
    assert_eq!((yard.steps("RUN").len(), build("2")), (1, 1), "the newest stays");
    assert!(yard.listed_bytes() < 250_000);
    yard.run(["fsck"]);
}

#[test]
fn a_collection_leaves_the_tree_that_is_all_there_is_of_a_step() {
    let yard = Yard::new(AT_ONCE);
    let dockerfile = "FROM busybox AS build\nRUN mkdir /out && echo made > /out/made && echo x > /x\n\
                      FROM scratch\nCOPY --from=build /out/made /made\n";
    yard.build("app", dockerfile);
    let bytes = || yard.steps("RUN mkdir")[0]["Bytes"].as_u64().unwrap();
    let before = bytes();
    assert!(before > 0);
    yard.run(["gc", "--layers", "0"]);
    assert_eq!(bytes(), before);
    // The file is taken from that tree: its step does not run.
    let changed = dockerfile.replace("/out/made /made", "/x /x");
    let said = yard.build("app", &changed);
    assert_eq!(cached(&said), 1, "{said}");
}

#[test]
fn what_a_later_layer_deletes_is_shown_to_the_byte() {
    let yard = Yard::new(AT_ONCE);
    let context = yard.place.context(
        "app",
        "FROM busybox\nRUN head -c 4000000 /dev/zero > /big && echo ok > /kept\nRUN rm /big\n\
         RUN chmod 600 /kept\n",
    );
    yard.run(["build", "-q", "-t", "app", text(&context)]);
    let report = || yard.run(["inspect", "--efficiency", "--json", "app"]).json();
    let found = report();
    let [_, written, removed, changed] = &found[0]["Layers"].as_array().unwrap()[..] else {
        panic!("four layers: {found}")
    };
    let amount = |files: u64, bytes: u64| json!({ "Files": files, "Bytes": bytes });
    assert!(removed["CreatedBy"].as_str().unwrap().contains("rm /big"), "{removed}");
    assert_eq!((&written["Bytes"], &written["Added"]), (&json!(4_000_003), &amount(2, 4_000_003)));
    assert_eq!(written["Wasted"], amount(2, 4_000_003));
    assert_eq!((&removed["Bytes"], &removed["Removed"]), (&json!(0), &amount(1, 4_000_000)));
    assert_eq!((&changed["Changed"], &changed["Repeated"]), (&amount(1, 3), &amount(1, 3)));
    assert_eq!(found[0]["WastedBytes"], 4_000_003);
    assert_eq!(
        found[0]["Wasted"],
        json!([
            { "Path": "/big", "Bytes": 4_000_000, "Layer": 2, "By": 3, "How": "deleted" },
            { "Path": "/kept", "Bytes": 3, "Layer": 2, "By": 4, "How": "repeated" },
        ])
    );
    // Without the tables it is read from the blobs.
    fs_err::remove_dir_all(yard.place.root().join("contents")).unwrap();
    assert_eq!(report(), found);
    let shown = yard.run(["inspect", "--efficiency", "app"]).text();
    assert!(shown.contains("4MB      /big    2       layer 3 deletes it"), "{shown}");
    let rows = yard.run(["history", "--json", "app"]).text();
    assert!(rows.lines().next().unwrap().contains("chmod 600 /kept"), "{rows}");
}
