//! From verdicts to a program of the kernel's filter machine (classic BPF).

use super::Verdict;

/// One instruction, as the kernel reads it.
type Instruction = libc::sock_filter;
/// A filter, ready to be loaded.
pub(in crate::execute) type Program = Vec<Instruction>;

/// Offsets into `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The low half of the first argument. What is asked of it has 32 bits: so does the kernel see it.
const ARGUMENT: u32 = 16;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const FORBID: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

/// Sockets of the kernel's cryptography, and to the host of a virtual machine: neither belongs to
/// a namespace.
const FORBIDDEN_FAMILIES: [u32; 2] = [libc::AF_ALG.cast_unsigned(), libc::AF_VSOCK.cast_unsigned()];
/// PER_LINUX and PER_LINUX32, each also with UNAME26; all ones asks what it is.
const ALLOWED_PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Every CLONE_NEW* that clone knows but CLONE_NEWTIME, whose bit it uses for the signal.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();

/// Makes the program that decides by architecture, then by the range that the number is in.
///
/// Each list of ranges is sorted and begins with zero.
pub(super) fn assemble(architectures: &[(u32, Vec<(u32, Verdict)>)]) -> Program {
    let mut program = vec![step(LOAD, ARCHITECTURE)];
    for (audit, ranges) in architectures {
        let mut calls = vec![step(LOAD, NUMBER)];
        calls.extend(decide(ranges));
        program.extend(unless(EQUAL, *audit, calls.len()));
        program.extend(calls);
    }
    program.push(step(RETURN, UNKNOWN));
    program
}

/// Decides by halving the ranges: nine comparisons find one of four hundred.
fn decide(ranges: &[(u32, Verdict)]) -> Program {
    match ranges {
        [] => vec![step(RETURN, UNKNOWN)],
        [(_, verdict)] => judge(*verdict),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (first, high) = (high[0].0, decide(high));
            let mut program = unless(AT_LEAST, first, high.len());
            program.extend(high);
            program.extend(decide(low));
            program
        }
    }
}

fn judge(verdict: Verdict) -> Program {
    match verdict {
        Verdict::Allow => vec![step(RETURN, ALLOW)],
        Verdict::Forbid => vec![step(RETURN, FORBID)],
        Verdict::Unknown => vec![step(RETURN, UNKNOWN)],
        Verdict::Socket => by_argument(EQUAL, &FORBIDDEN_FAMILIES, FORBID, ALLOW),
        Verdict::Personality => by_argument(EQUAL, &ALLOWED_PERSONALITIES, ALLOW, FORBID),
        Verdict::Clone => by_argument(ANY_BIT, &[NAMESPACES], FORBID, ALLOW),
    }
}

/// Returns `matching` if the first argument compares with one of `values`, else `other`.
fn by_argument(comparison: u32, values: &[u32], matching: u32, other: u32) -> Program {
    let mut program = vec![step(LOAD, ARGUMENT)];
    for value in values {
        program.extend(unless(comparison, *value, 1));
        program.push(step(RETURN, matching));
    }
    program.push(step(RETURN, other));
    program
}

/// Skips the next `length` instructions unless the comparison holds.
fn unless(comparison: u32, value: u32, length: usize) -> Program {
    match u8::try_from(length) {
        Ok(length) => vec![Instruction { jf: length, ..step(comparison, value) }],
        // A comparison cannot jump that far. What no jump can span, the kernel refuses to load.
        Err(_) => vec![
            Instruction { jt: 1, ..step(comparison, value) },
            step(JUMP, length.try_into().unwrap_or(u32::MAX)),
        ],
    }
}

fn step(code: u32, k: u32) -> Instruction {
    let code = code.try_into().unwrap_or(u16::MAX);
    Instruction { code, jt: 0, jf: 0, k }
}
