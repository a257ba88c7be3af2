//! The filter, worked through as the kernel does it.

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::{ALLOWED, Program, filter};

/// A step's.
const GRANTED: CapabilitySet = CapabilitySet::from_bits_retain(0xa804_25fb);

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const X32: u32 = 0x4000_0000;

/// What the filter answers: 0 allows.
fn answer(program: &Program, audit: u32, number: u32, argument: u32) -> i32 {
    let (mut at, mut value) = (0, 0);
    loop {
        let step = &program[at];
        at += 1;
        let jump = |holds| usize::from(if holds { step.jt } else { step.jf });
        match step.code {
            0x20 => {
                value = match step.k {
                    0 => number,
                    4 => audit,
                    16 => argument,
                    other => panic!("loads from {other}"),
                }
            }
            0x05 => at += usize::try_from(step.k).unwrap(),
            0x15 => at += jump(value == step.k),
            0x35 => at += jump(value >= step.k),
            0x45 => at += jump(value & step.k != 0),
            0x06 if step.k == libc::SECCOMP_RET_ALLOW => return 0,
            0x06 => {
                assert_eq!(step.k & 0xffff_0000, libc::SECCOMP_RET_ERRNO, "nobody is killed");
                return (step.k & 0xffff).cast_signed();
            }
            other => panic!("instruction {other:#x}"),
        }
    }
}

const ALLOW: i32 = 0;
const FORBID: i32 = libc::EPERM;
const UNKNOWN: i32 = libc::ENOSYS;

#[test]
#[cfg(target_arch = "x86_64")]
fn answers_as_runc_does_with_the_fields_policy() {
    let program = filter(GRANTED);
    let number = |call: libc::c_long| u32::try_from(call).unwrap();
    let clone_thread = 0x003d_0f00;
    for (name, audit, number, argument, expected) in [
        ("read", X86_64, number(libc::SYS_read), 0, ALLOW),
        ("chroot", X86_64, number(libc::SYS_chroot), 0, ALLOW),
        ("ptrace", X86_64, number(libc::SYS_ptrace), 0, ALLOW),
        ("mount", X86_64, number(libc::SYS_mount), 0, FORBID),
        ("umount2", X86_64, number(libc::SYS_umount2), 0, FORBID),
        ("unshare", X86_64, number(libc::SYS_unshare), 0, FORBID),
        ("setns", X86_64, number(libc::SYS_setns), 0, FORBID),
        ("bpf", X86_64, number(libc::SYS_bpf), 0, FORBID),
        ("keyctl", X86_64, number(libc::SYS_keyctl), 0, FORBID),
        ("add_key", X86_64, number(libc::SYS_add_key), 0, FORBID),
        ("io_uring_setup", X86_64, number(libc::SYS_io_uring_setup), 0, FORBID),
        ("open_by_handle_at", X86_64, number(libc::SYS_open_by_handle_at), 0, FORBID),
        ("kexec_load", X86_64, number(libc::SYS_kexec_load), 0, FORBID),
        ("clone of a thread", X86_64, number(libc::SYS_clone), clone_thread, ALLOW),
        ("clone into namespaces", X86_64, number(libc::SYS_clone), 0x1000_0000, FORBID),
        ("clone3", X86_64, number(libc::SYS_clone3), 0, UNKNOWN),
        ("AF_INET", X86_64, number(libc::SYS_socket), 2, ALLOW),
        ("AF_ALG", X86_64, number(libc::SYS_socket), 38, FORBID),
        ("AF_NFC", X86_64, number(libc::SYS_socket), 39, ALLOW),
        ("AF_VSOCK", X86_64, number(libc::SYS_socket), 40, FORBID),
        ("AF_XDP", X86_64, number(libc::SYS_socket), 44, ALLOW),
        ("PER_LINUX32", X86_64, number(libc::SYS_personality), 8, ALLOW),
        ("asking for it", X86_64, number(libc::SYS_personality), u32::MAX, ALLOW),
        ("ADDR_NO_RANDOMIZE", X86_64, number(libc::SYS_personality), 0x0004_0000, FORBID),
        ("the newest known", X86_64, 466, 0, ALLOW),
        ("a newer one", X86_64, 467, 0, UNKNOWN),
        ("none", X86_64, u32::MAX, 0, UNKNOWN),
        ("i386 read", I386, 3, 0, ALLOW),
        ("i386 mount", I386, 21, 0, FORBID),
        ("i386 socketcall", I386, 102, 0, ALLOW),
        ("i386 clone", I386, 120, 0x1000_0000, FORBID),
        ("i386 clone3", I386, 435, 0, UNKNOWN),
        ("x32 read", X86_64, X32, 0, ALLOW),
        ("x32 mount", X86_64, X32 + 165, 0, FORBID),
        ("x32 ioctl", X86_64, X32 + 514, 0, ALLOW),
        ("x32 newer", X86_64, X32 + 470, 0, UNKNOWN),
        ("another architecture", 0xc000_00b7, 63, 0, UNKNOWN),
    ] {
        assert_eq!(answer(&program, audit, number, argument), expected, "{name}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn what_depends_on_capabilities_follows_those_granted() {
    let answers = |granted| {
        let program = filter(granted);
        [libc::SYS_mount, libc::SYS_bpf, libc::SYS_syslog, libc::SYS_clone3, libc::SYS_chroot]
            .map(|call| answer(&program, X86_64, call.try_into().unwrap(), 0))
    };
    assert_eq!(answers(CapabilitySet::empty()), [FORBID, FORBID, FORBID, UNKNOWN, FORBID]);
    assert_eq!(answers(CapabilitySet::BPF), [FORBID, ALLOW, FORBID, UNKNOWN, FORBID]);
    assert_eq!(answers(CapabilitySet::SYS_ADMIN), [ALLOW, ALLOW, ALLOW, ALLOW, FORBID]);
    assert_eq!(
        answers(CapabilitySet::SYSLOG | CapabilitySet::SYS_CHROOT),
        [FORBID, FORBID, ALLOW, UNKNOWN, ALLOW]
    );
}

#[test]
fn is_small_and_every_jump_is_within() {
    let program = filter(GRANTED);
    assert!(program.len() < 1000, "{} instructions", program.len());
    for (at, step) in program.iter().enumerate() {
        assert!(at + 1 + usize::from(step.jt.max(step.jf)) < program.len() || step.code == 0x06);
    }
}

/// The numbers of the running architecture are those that libc has.
#[test]
fn numbers_are_the_kernels() {
    let column = if cfg!(target_arch = "x86_64") { 0 } else { 3 };
    let of = |name: &str| {
        let (_, numbers) = ALLOWED.iter().find(|(known, _)| *known == name).unwrap();
        libc::c_long::from(numbers[column])
    };
    for (name, number) in [
        ("accept4", libc::SYS_accept4),
        ("capset", libc::SYS_capset),
        ("execveat", libc::SYS_execveat),
        ("fchmodat", libc::SYS_fchmodat),
        ("getrandom", libc::SYS_getrandom),
        ("io_submit", libc::SYS_io_submit),
        ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
        ("openat2", libc::SYS_openat2),
        ("ptrace", libc::SYS_ptrace),
        ("rt_sigaction", libc::SYS_rt_sigaction),
        ("seccomp", libc::SYS_seccomp),
        ("wait4", libc::SYS_wait4),
        ("writev", libc::SYS_writev),
    ] {
        assert_eq!(of(name), number, "{name}");
    }
    assert_eq!(Errno::NOSYS.raw_os_error(), UNKNOWN);
}
