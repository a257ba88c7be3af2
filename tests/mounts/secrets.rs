//! `RUN --mount=type=secret` and `RUN --mount=type=ssh`.

use std::path::Path;

use crate::support::place::text;
use crate::support::{Place, Run};
use crate::user::User;
use crate::{build, built, place};

/// What nobody may find anywhere.
const VALUE: &str = "correct-horse-battery-staple";

/// Fails the test where a file below a directory holds the value.
#[track_caller]
fn holds_no_value(directory: &Path) {
    let found = Run::new("grep").args(["-r", "-a", "-l", VALUE]).arg(directory).fails(1);
    assert!(found.stdout.is_empty(), "{found}");
}

#[test]
fn a_secret_is_found_nowhere() {
    let place = place();
    let dockerfile = "FROM busybox\n\
        RUN --mount=type=secret,id=file --mount=type=secret,id=file,target=/deep/er,mode=0440,uid=1000,gid=50 \
         --mount=type=secret,id=variable,env=TOKEN --mount=type=secret,id=variable,env=BOTH,target=both \
         --mount=type=secret,id=none --mount=type=secret,id=none,env=NONE \
         test \"$(stat -c %u:%g:%a /run/secrets/file /deep/er | tr '\\n' ' ')\" = '0:0:400 1000:50:440 ' \
         && grep -q busybox /run/secrets/file && test \"$(cat /both)\" = \"$BOTH$NONE\" && test -n \"$TOKEN\" \
         && test ! -e /run/secrets/none && ! env | grep -q ^NONE && mkdir /left && cd /left \
         && cat /both /run/secrets/file | sha256sum > sum\n\
        RUN test -z \"$TOKEN$BOTH\" && test ! -e /run && test ! -e /both && test ! -e /deep\n";
    let context = place.context("app", dockerfile);
    let file = place.path("file");
    fs_err::write(&file, format!("busybox {VALUE}")).unwrap();
    let given = format!("id=file,src={}", text(&file));
    let secrets = ["--secret", &given, "--secret", "id=variable,env=TOKEN"];
    let run = |progress: &str| {
        place
            .boatyard(["build", "--progress", progress, "--compression=uncompressed", "-t", "app"])
            .args(secrets)
            .env("TOKEN", VALUE)
            .arg(&context)
    };
    let outputs = place.path("outputs");
    fs_err::create_dir(&outputs).unwrap();
    for (kind, name) in [("local", "dir"), ("tar", "tar"), ("oci", "oci"), ("docker", "docker")] {
        let output = format!("type={kind},dest={}", text(&outputs.join(name)));
        let said = run("json").args(["--output", &output, "--no-cache", "--explain=json"]).ok();
        assert!(!said.stderr.contains(VALUE), "{said}");
    }
    let said = run("plain").arg("--no-cache").ok();
    assert!(!said.stderr.contains(VALUE), "{said}");
    for what in ["history", "inspect"] {
        assert!(!place.boatyard([what, "app"]).ok().text().contains(VALUE));
    }
    holds_no_value(&outputs);
    holds_no_value(&place.root());

    // Another value is the same step, another id is not.
    let again = built(run("json").env("TOKEN", "another"));
    assert!(again.that_are("done").is_empty(), "{again}");
    place.context("app", &dockerfile.replace("id=none", "id=nothing"));
    assert_eq!(built(run("json")).that_are("done").len(), 1);

    // A step that fails shows what it is, not what it was given.
    let fails = place.context(
        "fails",
        "FROM busybox\nRUN --mount=type=secret,id=file,required --mount=type=secret,id=variable,env=T false\n",
    );
    let said = place.boatyard(["build", "--progress=plain"]).args(secrets).env("TOKEN", VALUE);
    let said = said.arg(&fails).fails(1);
    assert!(!said.to_string().contains(VALUE), "{said}");
    holds_no_value(&place.root());
    let said = place.boatyard(["build", "--secret", &format!("id=a,value={VALUE}"), text(&fails)]);
    let said = said.fails(2).stderr;
    assert!(!said.contains(VALUE), "{said}");
}

#[test]
fn secrets_in_other_isolations() {
    let place = place();
    let file = place.write("token", VALUE);
    let given = format!("id=token,src={}", text(&file));
    let variable = place.context(
        "variable",
        "FROM busybox\nRUN --mount=type=secret,id=token,env=TOKEN test ${#TOKEN} = 28\n",
    );
    let as_file = place.context(
        "file",
        "FROM busybox\nRUN --mount=type=secret,id=token,mode=444 test $(wc -c < /run/secrets/token) = 28\n",
    );
    let chroot = ["--isolation=chroot", "--secret", &given];
    build(&place, &variable).args(chroot).ok();
    let said = build(&place, &as_file).args(chroot).fails(1);
    said.says(["without mounts, a secret as a file would lie on the disk", "`env=NAME` gives it"]);
    holds_no_value(&place.root());

    let base = place.path("busybox.tar");
    place.boatyard(["save", "--output", text(&base), "busybox"]).ok();
    fs_err::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let user = User::without_subordinate_ids(&place);
    user.boatyard(["load", "--input", text(&base)]).ok();
    for context in [&variable, &as_file] {
        user.boatyard(["build", "--progress=plain", "--secret", &given, text(context)]).ok();
    }
    holds_no_value(&user.root());
}

/// Writes a program and the libraries that it takes into a context.
fn copy_program(context: &Path, program: &str) {
    let listed = Run::new("ldd").arg(program).ok().text();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain([program]) {
        let to = context.join("files").join(&path[1..]);
        fs_err::create_dir_all(to.parent().unwrap()).unwrap();
        fs_err::copy(path, to).unwrap();
    }
}

/// An agent of whoever builds, ended with this.
struct Agent {
    process: std::process::Child,
    socket: std::path::PathBuf,
}

impl Agent {
    fn start(place: &Place) -> Agent {
        let socket = place.path("agent");
        let process = Run::new("ssh-agent").args(["-D", "-a", text(&socket)]);
        let process = process.spawn(std::process::Stdio::null(), std::process::Stdio::null());
        crate::support::until("the agent listens", || socket.exists());
        Agent { process, socket }
    }

    fn ssh_add<const N: usize>(&self, args: [&str; N]) -> Run {
        Run::new("ssh-add").args(args).env("SSH_AUTH_SOCK", &self.socket)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn make_key(
    place: &Place,
    name: &str,
    kind: &str,
    passphrase: &str,
) -> (std::path::PathBuf, String) {
    let path = place.path(name);
    Run::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-C", name, "-f", text(&path)])
        .ok();
    let shown = Run::new("ssh-keygen").args(["-l", "-f", text(&path)]).ok().text();
    (path, shown.split(' ').nth(1).unwrap().to_owned())
}

#[test]
fn an_agent_signs_for_a_step_and_does_nothing_else() {
    let place = place();
    let agent = Agent::start(&place);
    let (key, fingerprint) = make_key(&place, "key", "ed25519", "");
    agent.ssh_add(["-q", text(&key)]).ok();
    let dockerfile = "FROM busybox\nCOPY files /\n\
        RUN --mount=type=ssh,mode=0666 test $SSH_AUTH_SOCK = /run/buildkit/ssh_agent.0 && ssh-add -l \
         && ssh-add -T /key.pub && ! ssh-add -D && ! ssh-add -x && ! ssh-add -d /key.pub && ssh-add -l\n\
        RUN --mount=type=ssh,id=none --mount=type=ssh,id=other,target=/sock,uid=1000 \
         test $SSH_AUTH_SOCK = /sock && test $(stat -c %u:%a /sock) = 1000:600 && ssh-add -l\n\
        RUN test -z \"$SSH_AUTH_SOCK\" && test ! -e /run && test ! -e /sock\n";
    let dockerfile = dockerfile.replace("ssh-add", "/usr/bin/ssh-add");
    let context = place.context("app", &dockerfile);
    copy_program(&context, "/usr/bin/ssh-add");
    fs_err::copy(place.path("key.pub"), context.join("files/key.pub")).unwrap();
    let (rsa, other) = make_key(&place, "rsa", "rsa", "");
    let keys = format!("other={},{}", text(&rsa), text(&key));
    for isolation in ["full", "userns", "chroot"] {
        let build = place.boatyard(["build", "--progress=plain", "--no-cache"]);
        let build = build.env("SSH_AUTH_SOCK", &agent.socket).args(["--ssh", "default", "--ssh"]);
        let said = build.args([&keys, "--isolation", isolation]).arg(&context).ok();
        said.says([&fingerprint, &other]);
    }
    assert!(agent.ssh_add(["-l"]).ok().text().contains(&fingerprint), "it still has the key");
    // The agent that was started for the build ends with it.
    let private = fs_err::read_to_string(&key).unwrap();
    let line = private.lines().nth(2).unwrap();
    Run::new("grep").args(["-r", "-a", "-l", line]).arg(place.root()).fails(1);
    let (secret, _) = make_key(&place, "closed", "ed25519", "passphrase");
    let closed = format!("default={}", text(&secret));
    let said = place.boatyard(["build", "--progress=plain", "--no-cache", "--ssh", &closed]);
    said.arg(&context).fails(1).says(["ssh-add does not take the keys"]);
    place
        .boatyard(["build", "--ssh", "default", text(&context)])
        .env_remove("SSH_AUTH_SOCK")
        .fails(2);
}
