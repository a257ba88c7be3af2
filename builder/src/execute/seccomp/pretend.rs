//! A filter for steps that have one user id: what gives files and processes to others succeeds, and
//! does nothing.
//!
//! Package managers chown what they unpack, become other users for a while, and make devices. Where
//! there is nobody else, each of these calls fails and ends the step, though the image would do
//! well without its effect. So they return 0 and are not carried out: all files end as root's.
//! What somebody else's step would see differently goes into its cache key, see
//! [`ids::is_single`](crate::ids::is_single).
//!
//! The list is that of Charliecloud's `--force=seccomp`, which has years of practice with it.

use super::calls::ALLOWED;
use super::program::{self, Program};
use super::{ARCHITECTURES, Numbering, Verdict};

/// Calls that are pretended whatever their arguments.
const PRETENDED: [&str; 26] = [
    "capset",
    "chown",
    "chown32",
    "fchown",
    "fchown32",
    "fchownat",
    "lchown",
    "lchown32",
    "setfsgid",
    "setfsgid32",
    "setfsuid",
    "setfsuid32",
    "setgid",
    "setgid32",
    "setgroups",
    "setgroups32",
    "setregid",
    "setregid32",
    "setresgid",
    "setresgid32",
    "setresuid",
    "setresuid32",
    "setreuid",
    "setreuid32",
    "setuid",
    "setuid32",
];
/// Calls that make files of all kinds: pretended for devices, which are told by the mode.
const MAKING: [(&str, Verdict); 2] =
    [("mknod", Verdict::PretendDevice(1)), ("mknodat", Verdict::PretendDevice(2))];

/// Makes the filter, which allows all that it does not pretend.
pub(in crate::execute) fn pretending() -> Program {
    let architectures = ARCHITECTURES.map(|architecture| {
        let numberings = architecture.numberings.iter();
        (architecture.audit, numberings.flat_map(|numbering| ranges(*numbering)).collect())
    });
    program::assemble(&architectures)
}

/// Returns ranges of numbers with the same verdict, each by its first number.
fn ranges(numbering: Numbering) -> Vec<(u32, Verdict)> {
    let pretended = PRETENDED.iter().map(|name| (*name, Verdict::Pretend));
    let mut numbers: Vec<(u32, Verdict)> = pretended
        .chain(MAKING)
        .filter_map(|(name, verdict)| {
            let (_, numbers) = ALLOWED.iter().find(|(call, _)| *call == name)?;
            Some((u32::try_from(numbers[numbering.column]).ok()?, verdict))
        })
        .collect();
    numbers.sort_unstable_by_key(|(number, _)| *number);
    let mut ranges = vec![(0, Verdict::Allow)];
    for (number, verdict) in numbers {
        ranges.pop_if(|(first, _)| *first == number);
        ranges.extend([(number, verdict), (number + 1, Verdict::Allow)]);
    }
    ranges.into_iter().map(|(first, verdict)| (numbering.offset + first, verdict)).collect()
}
