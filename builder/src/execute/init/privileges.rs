//! What a process may do: capabilities, ids, limits.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{Resource as Kernel, Rlimit as Limits, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::execute::failure::{During, Failure};
use crate::execute::spec::{Resource, Rlimit, Security, User};
use crate::ids;

/// The capabilities of a step: the field's default.
pub(super) const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// The limit on open files of a step that asks for none: soft, hard.
const OPEN_FILES: (u64, u64) = (1024, 1 << 20);

/// Gives up all capabilities but that to signal any process, which is all a reaper needs.
pub(super) fn keep_only_kill() -> Result<(), Failure> {
    let kill = CapabilitySet::KILL;
    let sets =
        CapabilitySets { effective: kill, permitted: kill, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).during("give up", "capabilities")
}

/// Makes `user` with the capabilities of `security` of this process.
///
/// Only what can be gained again is taken away here: executing a program gives root the
/// bounding set and everybody else nothing, whatever was held before.
pub(in crate::execute) fn become_user(user: &User, security: Security) -> Result<(), Failure> {
    if security == Security::Sandboxed {
        drop_bounding(DEFAULT).during("give up", "capabilities")?;
    }
    clear_ambient_capability_set().during("give up", "ambient capabilities")?;
    let mut held = rustix::thread::capabilities(None).during("read", "capabilities")?;
    held.inheritable = CapabilitySet::empty();
    set_capabilities(None, held).during("give up", "inheritable capabilities")?;
    // Where there is one id, everybody is root.
    if ids::is_single() {
        return Ok(());
    }
    let groups: Vec<Gid> = user.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    set_thread_groups(&groups).during("set", "supplementary groups")?;
    let gid = Gid::from_raw(user.gid);
    set_thread_res_gid(gid, gid, gid).during("become group", &user.gid.to_string())?;
    let uid = Uid::from_raw(user.uid);
    set_thread_res_uid(uid, uid, uid).during("become user", &user.uid.to_string())
}

fn drop_bounding(keep: CapabilitySet) -> Result<(), Errno> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        // What a container never had takes no right to give up.
        if keep.contains(capability)
            || matches!(capability_is_in_bounding_set(capability), Ok(false))
        {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // Past the last capability that this kernel knows.
            Err(Errno::INVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

/// Sets the resource limits that a step asks for, and the default one on open files.
pub(in crate::execute) fn limit(rlimits: &[Rlimit]) -> Result<(), Failure> {
    for Rlimit { resource, soft, hard } in rlimits {
        set(*resource, *soft, *hard)
            .during("set the limit", &format!("{resource:?}={soft}:{hard}").to_lowercase())?;
    }
    if rlimits.iter().any(|rlimit| rlimit.resource == Resource::Nofile) {
        return Ok(());
    }
    let (soft, hard) = OPEN_FILES;
    match set(Resource::Nofile, soft, hard) {
        // Without CAP_SYS_RESOURCE a limit cannot be raised; as much as we have will do.
        Err(Errno::PERM) => {
            let most = getrlimit(Kernel::Nofile).maximum.unwrap_or(hard).min(hard);
            set(Resource::Nofile, soft.min(most), most)
        }
        other => other,
    }
    .during("set the limit", "nofile")
}

fn set(resource: Resource, soft: u64, hard: u64) -> Result<(), Errno> {
    let bounded = |limit: u64| (limit != u64::MAX).then_some(limit);
    setrlimit(kernel(resource), Limits { current: bounded(soft), maximum: bounded(hard) })
}

fn kernel(resource: Resource) -> Kernel {
    match resource {
        Resource::Cpu => Kernel::Cpu,
        Resource::Fsize => Kernel::Fsize,
        Resource::Data => Kernel::Data,
        Resource::Stack => Kernel::Stack,
        Resource::Core => Kernel::Core,
        Resource::Rss => Kernel::Rss,
        Resource::Nproc => Kernel::Nproc,
        Resource::Nofile => Kernel::Nofile,
        Resource::Memlock => Kernel::Memlock,
        Resource::As => Kernel::As,
        Resource::Locks => Kernel::Locks,
        Resource::Sigpending => Kernel::Sigpending,
        Resource::Msgqueue => Kernel::Msgqueue,
        Resource::Nice => Kernel::Nice,
        Resource::Rtprio => Kernel::Rtprio,
        Resource::Rttime => Kernel::Rttime,
    }
}
