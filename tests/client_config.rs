//! What `boatyard client-config` writes for clients of packages, as those clients read it.

mod support;

use support::Place;
use support::place::text;

const CONFIG: &str = "\
    [[proxy.upstream]]\nname = 'py'\nurl = 'https://pypi.example'\necosystem = 'pypi'\n\
    [[proxy.upstream]]\nname = 'js'\nurl = 'https://npm.example'\necosystem = 'npm'\n\
    [[proxy.upstream]]\nname = 'rb'\nurl = 'https://gems.example'\necosystem = 'gem'\n\
    [[proxy.upstream]]\nname = 'rs'\nurl = 'https://crates.example'\necosystem = 'cargo'\n\
    [[proxy.upstream]]\nname = 'mod'\nurl = 'https://go.example'\necosystem = 'go'\n\
    private = ['corp.example/*']\n\
    [[proxy.upstream]]\nname = 'mvn'\nurl = 'https://maven.example'\necosystem = 'maven'\n\
    [[proxy.upstream]]\nname = 'apk'\nurl = 'https://alpine.example/alpine'\necosystem = 'apk'\n";

/// Has the settings of a client written below a directory that has a home.
fn write(place: &Place, client: &str, more: &[&str]) -> String {
    let config = place.write("boatyard.toml", CONFIG);
    let machine = place.path("machine");
    let args = ["client-config", client, "--server", "http://mirror.lan:3142"];
    let run = place.boatyard(args).env("BOATYARD_CONFIG", config).env("HOME", "/home/me");
    run.args(["--prefix", text(&machine)]).args(more).ok().text()
}

/// Says whether a client is here; its part of a test is left out otherwise.
#[expect(
    clippy::print_stderr,
    reason = "who reads the test's output is to know what was not tested"
)]
fn has(place: &Place, program: &str) -> bool {
    let found = place.run("sh", ["-c", "command -v \"$0\""]).arg(program).run();
    if found.text().is_empty() {
        eprintln!("skipped: there is no {program} here");
    }
    !found.text().is_empty()
}

#[test]
fn clients_read_what_is_written_for_them() {
    let place = Place::new();
    let machine = place.path("machine");
    let home = machine.join("home/me");
    for client in ["pip", "npm", "gem", "bundler", "cargo", "go", "apt", "dnf", "maven"] {
        for _ in 0..2 {
            write(&place, client, &["--write"]);
        }
    }
    let by = |program: &str, args: &[&str]| {
        let run = place.run(program, []).args(args.iter().copied()).env("HOME", &home);
        run.env_remove("PIP_INDEX_URL").env_remove("GOPROXY").current_dir(&home).ok().text()
    };
    if has(&place, "pip") {
        let listed = by("pip", &["config", "list"]);
        assert!(
            listed.contains("global.index-url='http://mirror.lan:3142/py/simple/'"),
            "{listed}"
        );
        assert!(listed.contains("global.trusted-host='mirror.lan:3142'"), "{listed}");
    }
    if has(&place, "npm") {
        let registry = by("npm", &["config", "get", "registry"]);
        assert_eq!(registry.trim(), "http://mirror.lan:3142/js/");
    }
    if has(&place, "gem") {
        let sources = by("gem", &["sources", "--list"]);
        assert!(sources.ends_with("http://mirror.lan:3142/rb/"), "{sources}");
    }
    if has(&place, "bundle") {
        let mirror = by("bundle", &["config", "get", "mirror.all"]);
        assert!(mirror.contains("\"http://mirror.lan:3142/rb/\""), "{mirror}");
    }
    if has(&place, "go") {
        let told = by("go", &["env", "GOPROXY", "GONOSUMDB"]);
        assert_eq!(told, "http://mirror.lan:3142/mod\ncorp.example");
    }
    if has(&place, "apt-config") {
        let file = machine.join("etc/apt/apt.conf.d/30boatyard");
        let dump = place.run("apt-config", ["dump"]).env("APT_CONFIG", file).ok().text();
        assert!(dump.contains("Acquire::http::Proxy \"http://mirror.lan:3142\";"), "{dump}");
    }
    let cargo = fs_err::read_to_string(home.join(".cargo/config.toml")).unwrap();
    assert!(cargo.contains("[source.crates-io]\nreplace-with = \"boatyard\"\n"), "{cargo}");
    let url = "registry = \"sparse+http://mirror.lan:3142/rs/\"";
    assert!(cargo.contains(&format!("[source.boatyard]\n{url}\n")), "{cargo}");
    let dnf = fs_err::read_to_string(machine.join("etc/dnf/dnf.conf")).unwrap();
    assert!(dnf.contains("[main]\nproxy=http://mirror.lan:3142\n"), "{dnf}");
    let maven = fs_err::read_to_string(home.join(".m2/settings.xml")).unwrap();
    assert!(maven.contains("<url>http://mirror.lan:3142/mvn/</url>"), "{maven}");
}

#[test]
fn what_is_there_stays_and_comes_back() {
    let place = Place::new();
    let npmrc = "; mine\n//npm.example/:_authToken=secret\nregistry=https://old.example/\n";
    let path = place.write("machine/home/me/.npmrc", npmrc);
    let apk = "https://alpine.example/alpine/v3.20/main\n@edge http://alpine.example/alpine/edge/main\n\
               https://other.example/x\n";
    let apk_path = place.write("machine/etc/apk/repositories", apk);
    for _ in 0..2 {
        write(&place, "npm", &["--write"]);
        write(&place, "apk", &["--write"]);
    }
    let now = npmrc.replace("https://old.example/", "http://mirror.lan:3142/js/");
    assert_eq!(fs_err::read_to_string(&path).unwrap(), now);
    assert_eq!(
        fs_err::read_to_string(&apk_path).unwrap(),
        "http://mirror.lan:3142/apk/v3.20/main\n@edge http://mirror.lan:3142/apk/edge/main\n\
         https://other.example/x\n"
    );
    write(&place, "pip", &["--write"]);
    for client in ["npm", "apk", "pip"] {
        write(&place, client, &["--undo"]);
    }
    assert_eq!(fs_err::read_to_string(&path).unwrap(), npmrc);
    assert_eq!(fs_err::read_to_string(&apk_path).unwrap(), apk);
    assert!(!place.path("machine/home/me/.config/pip/pip.conf").exists());
    let none = place.boatyard(["client-config", "npm"]).fails(2);
    assert!(none.stderr.contains("ecosystem"), "{}", none.stderr);
    place.boatyard(["client-config", "go", "--system", "--server", "http://x:1"]).fails(2);
    place.boatyard(["client-config", "apt", "--server", "x"]).fails(2);
}
