//! How steps begin and end.



use boatyard_builder::execute::{Outcome};

use crate::harness::tests;
use crate::world::World;

tests!(
    says_what_it_writes,
    exit_codes_and_signals,
);

fn says_what_it_writes() {
    let ran = World::new().sh("echo out; echo err >&2");
    assert_eq!(ran.outcome(), Outcome::Exited(0));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
}

fn exit_codes_and_signals() {
    let world = World::new();
    for (script, outcome) in [
        ("exit 0", Outcome::Exited(0)),
        ("exit 3", Outcome::Exited(3)),
        ("exit 137", Outcome::Exited(137)),
        ("kill -9 $$", Outcome::Signaled(9)),
        ("kill -TERM $$", Outcome::Signaled(15)),
        ("exec kill -SEGV $$", Outcome::Signaled(11)),
    ] {
        assert_eq!(world.sh(script).outcome(), outcome, "{script}");
    }
}
