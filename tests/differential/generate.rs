//! Dockerfiles that nobody wrote, and a context to build them with: the same for the same seed.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::Place;
use crate::support::place::text;

/// The image that all begin with.
pub const BASE: &str = "localhost/base:1";

/// A case: what is built.
pub struct Case {
    pub seed: u64,
    pub dockerfile: String,
    pub ignore: Option<String>,
}

/// What is chosen from, by a seed: xorshift64*.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % limit
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn often(&mut self, times: usize, of: usize) -> bool {
        self.below(of) < times
    }
}

/// What can be copied, and patterns that match some of it.
const SOURCES: [&str; 22] = [
    "a.txt",
    "b.txt",
    "run.sh",
    "dir",
    "dir/",
    "dir/one",
    "./dir/two",
    "dir/*",
    "d*/one",
    "*.txt",
    "?.txt",
    "link",
    "dlink",
    "dlink/",
    "empty",
    ".hidden",
    "dir/sub",
    "/a.txt",
    "dir/sub/../one",
    "[ab].txt",
    "none*",
    "missing",
];
const OWNERS: [&str; 6] = ["1000:1000", "app", "app:staff", "1000", "0:50", "root:1000"];
const WORDS: [&str; 12] = [
    "plain",
    "$A",
    "${A}",
    "${B:-def}",
    "${A:+alt}",
    "\"q $A\"",
    "'lit $A'",
    "\\$A",
    "a\\ b",
    "${C}x",
    "\"\"",
    "pre${A}post",
];
const IGNORES: [&str; 7] =
    ["b.txt", "dir/sub", "*.sh", "*\n!a.txt\n!dir", "**/one", "# none\n\ndir/*\n!dir/two", "/link"];

/// Writes the files of the context.
pub fn context(place: &Place, directory: &Path) {
    for (path, content, mode) in [
        ("a.txt", "a\n", 0o644),
        ("b.txt", "b\n", 0o600),
        ("run.sh", "#!/bin/sh\necho ran\n", 0o755),
        ("dir/one", "one\n", 0o640),
        ("dir/two", "two\n", 0o444),
        ("dir/sub/deep", "deep\n", 0o644),
        (".hidden", "hidden\n", 0o644),
        ("packed/x", "x\n", 0o604),
        ("packed/y/z", "z\n", 0o644),
    ] {
        let path = directory.join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, content).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    for (path, mode) in [("empty", 0o755), ("dir/sub", 0o750)] {
        fs_err::create_dir_all(directory.join(path)).unwrap();
        let mode = std::fs::Permissions::from_mode(mode);
        fs_err::set_permissions(directory.join(path), mode).unwrap();
    }
    fs_err::os::unix::fs::symlink("a.txt", directory.join("link")).unwrap();
    fs_err::os::unix::fs::symlink("dir", directory.join("dlink")).unwrap();
    let packed = directory.join("packed");
    fs_err::os::unix::fs::symlink("x", packed.join("l")).unwrap();
    fs_err::hard_link(packed.join("x"), packed.join("h")).unwrap();
    for (flag, name) in [("-cf", "t.tar"), ("-czf", "t.tar.gz")] {
        let archive = directory.join(name);
        let owner = ["--owner=7", "--group=8", "--numeric-owner", "--sort=name", "--mtime=@1"];
        place.run("tar", owner).args(["-C", text(&packed), flag, text(&archive), "."]).ok();
    }
}

/// Returns a case.
pub fn case(seed: u64) -> Case {
    let mut dice = Dice::new(seed);
    let mut text = String::new();
    if dice.often(1, 3) {
        let _ = writeln!(text, "ARG BASE={BASE}");
        text.push_str("FROM $BASE AS first\n");
    } else {
        let _ = writeln!(text, "FROM {BASE} AS first");
    }
    let stages = 1 + dice.below(3);
    stage(&mut dice, &mut text, 0);
    for number in 1..stages {
        let base = if dice.often(1, 2) { "first" } else { BASE };
        let name = if number == 1 { " AS second" } else { "" };
        let _ = writeln!(text, "FROM {base}{name}");
        let from = if number == 2 && dice.often(1, 2) { "second" } else { "first" };
        stage(&mut dice, &mut text, number);
        if dice.often(3, 4) {
            let what = dice.one(&["/tmp", "/tmp/", "/etc/passwd", "/bin/sh", "/tmp/f*"]);
            let to = dice.one(&["/from/", "/from", "/tmp/from/"]);
            let owner = owner(&mut dice);
            let _ = writeln!(text, "COPY --from={from} {owner}{what} {to}");
        }
    }
    let ignore = dice.often(1, 3).then(|| dice.one(&IGNORES).to_owned());
    Case { seed, dockerfile: text, ignore }
}

fn owner(dice: &mut Dice) -> String {
    match dice.often(1, 3) {
        true => format!("--chown={} ", dice.one(&OWNERS)),
        false => String::new(),
    }
}

fn stage(dice: &mut Dice, text: &mut String, stage: usize) {
    for number in 0..3 + dice.below(7) {
        let n = stage * 100 + number;
        let line = instruction(dice, n);
        text.push_str(&line);
        text.push('\n');
    }
}

fn instruction(dice: &mut Dice, n: usize) -> String {
    match dice.below(22) {
        0 => format!("ARG {}={}", dice.one(&["A", "B", "C"]), dice.one(&WORDS)),
        1 | 2 => {
            let (name, word) = (dice.one(&["A", "B", "C", "PATH_TO"]), dice.one(&WORDS));
            match dice.below(4) {
                0 => format!("ENV {name} {word} rest"),
                1 => format!("ENV {name}={word} D{n}={}", dice.one(&WORDS)),
                _ => format!("ENV {name}={word}"),
            }
        }
        3..=7 => copy(dice, n),
        8 => {
            let archive = dice.one(&["t.tar", "t.tar.gz", "a.txt", "dir"]);
            format!("ADD {}{archive} {}", owner(dice), dice.one(&["/add/", "/tmp/add", "add/"]))
        }
        9..=13 => run(dice, n),
        14 => {
            format!("WORKDIR {}", dice.one(&["/w", "rel", "/tmp/../w2", "/w/$A", "/deep/er", "."]))
        }
        15 => format!("USER {}", dice.one(&["app", "root", "1000:50", "0", "app:staff"])),
        16 => format!("LABEL l{n}={} \"k.{n}\"=\"v $A\"", dice.one(&WORDS)),
        17 => dice
            .one(&[
                "CMD [\"a\", \"$A\"]",
                "CMD echo $A  x",
                "ENTRYPOINT [\"/bin/sh\"]",
                "ENTRYPOINT exec top -b",
                "CMD []",
            ])
            .to_owned(),
        18 => dice
            .one(&[
                "EXPOSE 80",
                "EXPOSE 53/udp 80/tcp",
                "EXPOSE 8000-8002",
                "STOPSIGNAL SIGINT",
                "STOPSIGNAL 9",
                "MAINTAINER some one",
            ])
            .to_owned(),
        19 => dice
            .one(&[
                "VOLUME /vol",
                "VOLUME [\"/v1\", \"/v 2\"]",
                "HEALTHCHECK --interval=5s --retries=2 CMD true",
                "HEALTHCHECK CMD [\"/bin/true\"]",
                "HEALTHCHECK NONE",
            ])
            .to_owned(),
        20 => dice
            .one(&["SHELL [\"/bin/sh\", \"-ec\"]", "SHELL [\"/bin/busybox\", \"sh\", \"-c\"]"])
            .to_owned(),
        _ => format!("ONBUILD {}", dice.one(&["RUN echo t >> /tmp/ob", "ENV OB=1", "LABEL ob=$A"])),
    }
}

fn copy(dice: &mut Dice, n: usize) -> String {
    let owner = owner(dice);
    let first = dice.one(&SOURCES);
    if dice.often(1, 4) {
        return format!("COPY {owner}{first} {} /many{n}/", dice.one(&SOURCES));
    }
    let to = dice.one(&["/c", "/c/", "c/", "/tmp/c/", "/usr/", ".", "./x", "/new/deep/c", "/$A/c"]);
    format!("COPY {owner}{first} {to}")
}

fn run(dice: &mut Dice, n: usize) -> String {
    let before = n.saturating_sub(1);
    match dice.below(12) {
        0 => format!("RUN [\"sh\", \"-c\", \"echo exec $A > /tmp/e{n}\"]"),
        1 => format!("RUN echo \"$A-${{B:-none}}-$C\" > /tmp/v{n}"),
        2 => format!("RUN mkdir -p /tmp/d{n}/e && echo x > /tmp/d{n}/e/f && chmod 750 /tmp/d{n}/e"),
        3 => format!("RUN ln -s /tmp/f{before} /tmp/l{n}; ln -sf ../etc /tmp/m{n}"),
        4 => format!("RUN cp -p /etc/passwd /tmp/p{n} && chmod 4711 /tmp/p{n}"),
        5 => format!("RUN rm -rf /tmp/d{before} /tmp/f{before}"),
        6 => format!(
            "RUN pwd > /tmp/w{n}; id -u >> /tmp/w{n}; id -g >> /tmp/w{n}; umask >> /tmp/w{n}"
        ),
        7 => format!("RUN echo $HOME > /tmp/h{n} && ln /tmp/h{n} /tmp/hh{n}"),
        8 => format!("RUN mkfifo /tmp/pipe{n} && mkdir -m 1777 /tmp/s{n}"),
        9 => format!("RUN rm -rf /usr && echo back > /tmp/usr{n}"),
        10 => format!("RUN echo a\\\n  # a comment\n  b > /tmp/c{n}"),
        _ => format!("RUN echo {n} > /tmp/f{n}"),
    }
}
