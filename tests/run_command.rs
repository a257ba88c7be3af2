//! `boatyard run`: what goes in and comes out of a command in an image, how it ends, and that
//! nothing is left of it.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use support::lab::{HOST, Lab, OUTSIDE};
use support::place::text;
use support::{Place, images};

/// Returns a place whose root has the image `busybox`.
fn place() -> Place {
    let place = Place::new();
    images::busybox(&place);
    place
}

#[test]
fn it_ends_as_the_command_does() {
    let place = place();
    let run = |args: &[&str]| place.boatyard(["run", "--network=none", "busybox"]).args(args);
    assert_eq!(run(&["echo", "--help", "me"]).ok().text(), "--help me");
    run(&["sh", "-c", "echo wrong >&2; exit 7"]).fails(7).says(["wrong"]);
    run(&["sh", "-c", "kill -9 $$"]).fails(137);
    run(&["nothing"]).fails(127).says(["nothing was not found in the image's PATH"]);
    run(&["/etc/passwd"]).fails(126).says(["cannot execute /etc/passwd"]);
    place.boatyard(["run", "--pull=never", "nowhere", "true"]).fails(125);
    // No volumes by name, as yet: a plain mistake is not taken for a new volume.
    place.boatyard(["run", "-v", "data:/data", "busybox"]).fails(2).says(["with a path"]);
}

#[test]
fn what_is_asked_for_is_what_the_command_sees() {
    let place = place();
    let shared = place.write("shared/file", "from the host\n");
    place.write("variables", "# a comment\nONE=1\n\nTWO=from the file\n");
    let said = place
        .boatyard(["run", "--rm", "--network=none", "--hostname=ship", "-u", "app", "-w", "/made"])
        .args(["-e", "TWO=2", "-e", "THREE", "--env-file", text(&place.path("variables"))])
        .args(["-v", &format!("{}:/in/file:ro", text(&shared)), "--tmpfs", "/scratch:size=1m"])
        .args(["--add-host", "db:192.0.2.7", "--ulimit", "nofile=77", "--entrypoint", "/bin/sh"])
        .args(["busybox", "-c"])
        .arg(
            "id -un; pwd; hostname; echo $ONE $TWO $THREE; cat /in/file; \
             echo x > /scratch/x && cat /scratch/x; grep db /etc/hosts; ulimit -n; \
             touch /in/file 2>&1 | grep -o 'Read-only.*'; busybox cat",
        )
        .env("THREE", "3")
        .input("nobody reads this")
        .ok();
    assert_eq!(
        said.text(),
        "app\n/made\nship\n1 2 3\nfrom the host\nx\n192.0.2.7\tdb\n77\nRead-only file system"
    );
}

#[test]
fn standard_input_is_passed_on_when_asked_for() {
    let place = place();
    let noise = images::noise(7, 3 << 20);
    let run = place.boatyard(["run", "-i", "--network=none", "busybox", "cat"]);
    assert_eq!(run.input(noise.clone()).ok().stdout, noise);
}

#[test]
fn what_it_writes_is_gone_and_can_be_refused() {
    let place = place();
    let run = |options: &[&str], script: &str| {
        let run = place.boatyard(["run", "--network=none"]).args(options);
        run.args(["busybox", "sh", "-c", script])
    };
    run(&[], "echo mine > /here && cat /here").ok();
    run(&[], "cat /here").fails(1);
    run(&["--read-only"], "echo mine > /here").fails(1).says(["Read-only file system"]);
    run(&["--read-only"], "echo mine > /dev/shm/here && test -c /dev/null").ok();
    let left = fs_err::read_dir(place.root().join("active/root")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn signals_reach_the_command() {
    let place = place();
    let script = "trap 'echo told; exit 5' TERM; echo up; while true; do sleep 0.1; done";
    let mut child = place
        .boatyard(["run", "--network=none", "busybox", "sh", "-c", script])
        .spawn(Stdio::piped(), Stdio::inherit());
    let mut stdout = child.stdout.take().unwrap();
    let mut up = [0; 3];
    stdout.read_exact(&mut up).unwrap();
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!((up.as_slice(), rest.as_str()), (&b"up\n"[..], "told\n"));
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_terminal_is_the_commands_own_and_ours_is_as_it_was() {
    let place = place();
    let far = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&far).unwrap();
    tcsetwinsize(&far, Winsize { ws_row: 31, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let near = ioctl_tiocgptpeer(&far, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    let before = tcgetattr(&near).unwrap();
    let script = "busybox tty; busybox stty size; echo $TERM; read line; echo read $line; exit 3";
    let stream = || Stdio::from(near.try_clone().unwrap());
    let mut child = Command::new(env!("CARGO_BIN_EXE_boatyard"))
        .args(["run", "-it", "--network=none", "busybox", "sh", "-c", script])
        .env("BOATYARD_ROOT", place.root())
        .env("HOME", place.path("home"))
        .stdin(stream())
        .stdout(stream())
        .stderr(stream())
        .spawn()
        .unwrap();
    let mut terminal = std::fs::File::from(OwnedFd::try_clone(&far).unwrap());
    // The command's terminal turns a line's end into the two characters that ours needs; echo is
    // its matter, too.
    let mut shown = read_until(&mut terminal, "xterm\r\n");
    // While it runs, ours passes on every key.
    assert!(!tcgetattr(&near).unwrap().local_modes.contains(LocalModes::ICANON));
    terminal.write_all(b"a word\r").unwrap();
    shown.push_str(&read_until(&mut terminal, "read a word\r\n"));
    assert_eq!(shown, "/dev/pts/0\r\n31 97\r\nxterm\r\na word\r\nread a word\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(tcgetattr(&near).unwrap().local_modes, before.local_modes);
}

/// Reads what is shown up to an expected end.
fn read_until(terminal: &mut std::fs::File, end: &str) -> String {
    let mut shown = Vec::new();
    while !shown.ends_with(end.as_bytes()) {
        let mut byte = [0];
        terminal.read_exact(&mut byte).unwrap();
        shown.push(byte[0]);
    }
    String::from_utf8(shown).unwrap()
}

#[test]
fn its_network_reaches_the_world_and_not_the_host() {
    let (lab, place) = (Lab::new(true), place());
    let before = lab.traces();
    let ask = |network: &str, address: &str| {
        let script = format!("busybox timeout 3 busybox nc {address} 7777 < /dev/null");
        lab.boatyard(&place, ["run", network, "busybox", "sh", "-c", &script]).run().text()
    };
    assert_eq!(ask("--network=default", OUTSIDE[0]), "outside");
    assert_eq!(ask("--network=default", "out"), "outside");
    assert_eq!(ask("--network=default", HOST[0]), "");
    assert_eq!(ask("--network=host", HOST[0]), "host");
    assert_eq!(ask("--network=none", OUTSIDE[0]), "");
    support::until("nothing is left", || lab.traces() == before);
}
