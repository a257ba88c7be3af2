//! The filter of system calls: what of the kernel a step can reach at all.
//!
//! [`calls`] has the policy as data. From it a program for the kernel's filter machine is made once
//! per helper, and loaded by each step right before it gives up the right to load one: with
//! `no_new_privs`, which needs no right, sudo would not work. It decides for all the architectures
//! that the machine runs, since i386 programs are at home on x86-64:
//!
//! ```text
//! architecture ── x86-64 ──▶ number, halving the ranges ──▶ allow
//!              ├─ i386   ──▶ …                           ├─▶ EPERM: the policy does not allow it
//!              └─ other  ──▶ ENOSYS                      ├─▶ ENOSYS: newer than the policy; clone3
//!                                                        └─▶ look at the first argument
//! ```
//!
//! Nobody is ever killed by it. The answers are those of runc with moby's policy, which programs
//! are tried with. The crate `seccompiler` does not do: it kills what calls by another
//! architecture's numbers, has one answer per filter, and compares number by number: three
//! numberings would take 5,000 instructions, more than the kernel loads, where this takes 751 and
//! at most eleven comparisons per call. Loading it takes 0.2 ms.

mod calls;
mod program;

use rustix::thread::CapabilitySet;

use calls::{ALLOWED, CLONE, CLONE3, Call, N, NEWEST, PERSONALITY, PRIVILEGED, SOCKET};
pub(super) use program::Program;

/// What the filter does about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    /// EPERM.
    Forbid,
    /// ENOSYS: as if the kernel did not have it.
    Unknown,
    /// Forbids the families of sockets that reach around namespaces.
    Socket,
    /// Allows the personalities that switch nothing off.
    Personality,
    /// Forbids to make namespaces.
    Clone,
}

/// One way to number calls: a column of the table, and what is added to its numbers.
#[derive(Debug, Clone, Copy)]
struct Numbering {
    column: usize,
    offset: u32,
}

/// An architecture as the kernel's audit names it, with the ways in which it numbers calls.
#[derive(Debug, Clone, Copy)]
struct Architecture {
    audit: u32,
    numberings: &'static [Numbering],
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [Architecture; 2] = [
    // AUDIT_ARCH_X86_64; the calls of x32 have bit 30 set.
    Architecture {
        audit: 0xc000_003e,
        numberings: &[
            Numbering { column: 0, offset: 0 },
            Numbering { column: 2, offset: 0x4000_0000 },
        ],
    },
    // AUDIT_ARCH_I386
    Architecture { audit: 0x4000_0003, numberings: &[Numbering { column: 1, offset: 0 }] },
];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [Architecture; 2] = [
    // AUDIT_ARCH_AARCH64
    Architecture { audit: 0xc000_00b7, numberings: &[Numbering { column: 3, offset: 0 }] },
    // AUDIT_ARCH_ARM
    Architecture { audit: 0x4000_0028, numberings: &[Numbering { column: 4, offset: 0 }] },
];

/// Makes the filter for a process that can have `granted` capabilities, and no others.
pub(super) fn filter(granted: CapabilitySet) -> Program {
    let verdicts = verdicts(granted);
    let architectures = ARCHITECTURES.map(|Architecture { audit, numberings }| {
        let ranges = numberings.iter().flat_map(|numbering| ranges(&verdicts, *numbering));
        (audit, ranges.collect())
    });
    program::assemble(&architectures)
}

/// Returns the calls about which there is more to say than their number tells.
fn verdicts(granted: CapabilitySet) -> Vec<(&'static Call, Verdict)> {
    let namespaces = granted.contains(CapabilitySet::SYS_ADMIN);
    let privileged = PRIVILEGED.iter().filter(|(any, _)| granted.intersects(*any));
    let allowed = privileged.flat_map(|(_, calls)| calls.iter()).chain(&ALLOWED);
    let mut verdicts: Vec<_> = allowed.map(|call| (call, Verdict::Allow)).collect();
    verdicts.push((&SOCKET, Verdict::Socket));
    verdicts.push((&PERSONALITY, Verdict::Personality));
    verdicts.push((&CLONE, if namespaces { Verdict::Allow } else { Verdict::Clone }));
    verdicts.push((&CLONE3, if namespaces { Verdict::Allow } else { Verdict::Unknown }));
    verdicts
}

/// Returns ranges of numbers with the same verdict, each by its first number, from the offset on
/// to the end of all numbers.
fn ranges(verdicts: &[(&Call, Verdict)], numbering: Numbering) -> Vec<(u32, Verdict)> {
    let numbers = verdicts.iter().filter_map(|((_, numbers), verdict)| {
        let number = numbers[numbering.column];
        (number != N).then_some((number.cast_unsigned(), *verdict))
    });
    let mut numbers: Vec<(u32, Verdict)> = numbers.collect();
    numbers.sort_unstable_by_key(|(number, _)| *number);
    let mut ranges = Vec::new();
    let mut next = 0;
    for (number, verdict) in numbers {
        gap(&mut ranges, next, number);
        ranges.push((number, verdict));
        next = number + 1;
    }
    gap(&mut ranges, next, u32::MAX);
    ranges.dedup_by_key(|(_, verdict)| *verdict);
    ranges.into_iter().map(|(first, verdict)| (numbering.offset + first, verdict)).collect()
}

/// Adds what is to be said of the numbers from `first` to before `end`, which no call here has.
fn gap(ranges: &mut Vec<(u32, Verdict)>, first: u32, end: u32) {
    if first < end && first <= NEWEST {
        ranges.push((first, Verdict::Forbid));
    }
    if end > NEWEST + 1 {
        ranges.push((first.max(NEWEST + 1), Verdict::Unknown));
    }
}

#[cfg(test)]
mod tests;
