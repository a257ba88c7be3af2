//! Programs of other machines: what of them runs here, and what the kernel hands to an emulator.
//!
//! The kernel's binfmt_misc names, for the first bytes of a program, an interpreter that runs it
//! (`qemu-aarch64`). Steps see the files of their image and not the interpreter's: only one that is
//! registered with the flag F, which opens it once and for all, is found from there. This is looked
//! up before anything runs: a step that cannot be run is told with what helps.

use std::path::Path;

use boatyard_oci::Platform;

use crate::build::BuildRequest;
use crate::dockerfile::{Diagnostic, InstructionKind};
use crate::plan::{self, Plan, PlannedStage};

/// The files of binfmt_misc that are no registrations.
const CONTROLS: [&str; 2] = ["register", "status"];
/// How much of a program its header is: up to the machine that it is for.
const HEADER_BYTES: usize = 20;

/// The emulators that the kernel knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emulators(Vec<Emulator>);

/// One that is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emulator {
    /// The program, as a path of this machine.
    pub interpreter: String,
    /// It is found from within an image: flag F.
    pub is_open: bool,
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

impl Emulators {
    /// Reads what is registered below a directory such as `/proc/sys/fs/binfmt_misc`; nothing where it
    /// is not there.
    pub fn read(directory: &Path) -> Emulators {
        let Ok(entries) = fs_err::read_dir(directory) else { return Emulators::default() };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            !name.is_some_and(|name| CONTROLS.contains(&name))
        });
        paths.sort();
        let status = fs_err::read_to_string(directory.join("status")).unwrap_or_default();
        if status.trim() == "disabled" {
            return Emulators::default();
        }
        let texts = paths.iter().filter_map(|path| fs_err::read_to_string(path).ok());
        Emulators(texts.filter_map(|text| Emulator::parse(&text)).collect())
    }

    /// Returns the emulator for programs of a platform: of several, one that works.
    pub fn find(&self, platform: &Platform) -> Option<&Emulator> {
        let header = header(platform)?;
        let fits = || self.0.iter().filter(|emulator| emulator.fits(&header));
        fits().find(|emulator| emulator.is_open).or_else(|| fits().next())
    }
}

impl Emulator {
    /// Reads a registration as the kernel shows it; nothing, where it is off or goes by a file's
    /// name.
    fn parse(text: &str) -> Option<Emulator> {
        let mut lines = text.lines();
        if lines.next()? != "enabled" {
            return None;
        }
        let (mut interpreter, mut flags, mut offset) = (None, "", 0);
        let (mut magic, mut mask) = (None, None);
        for line in lines {
            match line.split_once(' ') {
                Some(("interpreter", path)) => interpreter = Some(path),
                Some(("flags:", set)) => flags = set,
                Some(("offset", number)) => offset = number.parse().ok()?,
                Some(("magic", hex)) => magic = bytes(hex),
                Some(("mask", hex)) => mask = bytes(hex),
                _ => {}
            }
        }
        let magic = magic?;
        let mask = mask.unwrap_or_else(|| vec![0xff; magic.len()]);
        if mask.len() != magic.len() {
            return None;
        }
        let is_open = flags.contains('F');
        Some(Emulator { interpreter: interpreter?.to_owned(), is_open, offset, magic, mask })
    }

    fn fits(&self, header: &[u8; HEADER_BYTES]) -> bool {
        let mut pairs = (self.offset..).zip(self.magic.iter().zip(&self.mask));
        pairs.all(|(at, (magic, mask))| match header.get(at) {
            Some(byte) => byte & mask == magic & mask,
            None => *mask == 0,
        })
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(byte).collect()
}

/// Returns how a program for a platform begins.
fn header(platform: &Platform) -> Option<[u8; HEADER_BYTES]> {
    // The class (32 or 64 bits), the order of bytes (1: little end first) and the machine of ELF.
    let (class, order, machine): (u8, u8, u16) = match platform.architecture.as_str() {
        "386" => (1, 1, 3),
        "amd64" => (2, 1, 62),
        "arm" => (1, 1, 40),
        "arm64" => (2, 1, 183),
        "loong64" => (2, 1, 258),
        "mips64le" => (2, 1, 8),
        "ppc64le" => (2, 1, 21),
        "riscv64" => (2, 1, 243),
        "s390x" => (2, 2, 22),
        _ => return None,
    };
    let word = |number: u16| if order == 1 { number.to_le_bytes() } else { number.to_be_bytes() };
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(b"\x7fELF");
    header[4..7].copy_from_slice(&[class, order, 1]);
    // A program to run: ET_EXEC.
    header[16..18].copy_from_slice(&word(2));
    header[18..].copy_from_slice(&word(machine));
    Some(header)
}

/// Says whether a machine runs programs of a platform without an emulator.
fn runs_natively(machine: &Platform, platform: &Platform) -> bool {
    if machine.runs(platform) {
        return true;
    }
    if machine.os != platform.os {
        return false;
    }
    match (machine.architecture.as_str(), platform.architecture.as_str()) {
        // The kernels of distributions run the programs of their 32-bit forebears.
        ("amd64", "386") | ("arm64", "arm") => true,
        ("amd64", "amd64") => platform.variant.as_deref().is_some_and(has_level),
        _ => false,
    }
}

/// Says whether this processor has all that a level of x86-64 asks for.
#[cfg(target_arch = "x86_64")]
fn has_level(variant: &str) -> bool {
    let v2 = || {
        is_x86_feature_detected!("cmpxchg16b")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("sse4.2")
            && is_x86_feature_detected!("ssse3")
    };
    let v3 = || {
        v2() && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("movbe")
    };
    let v4 = || {
        v3() && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
    };
    match variant {
        "v1" => true,
        "v2" => v2(),
        "v3" => v3(),
        "v4" => v4(),
        _ => false,
    }
}

/// Says whether this processor has all that a level of x86-64 asks for.
#[cfg(not(target_arch = "x86_64"))]
fn has_level(_variant: &str) -> bool {
    false
}

/// Looks for a step that this machine cannot run.
///
/// # Errors
/// The first of them, with what helps.
pub(crate) fn check(request: &BuildRequest, plans: &[Plan]) -> Result<(), Diagnostic> {
    let machine = &request.plan.build_platform;
    for stage in plans.iter().flat_map(|plan| &plan.stages) {
        if runs_natively(machine, &stage.platform) {
            continue;
        }
        let is_open = request.emulators.find(&stage.platform).map(|emulator| emulator.is_open);
        if is_open != Some(true) {
            refuse(request, stage)?;
        }
    }
    Ok(())
}

/// Refuses a stage, if anything is run in it.
fn refuse(request: &BuildRequest, stage: &PlannedStage) -> Result<(), Diagnostic> {
    let is_run = |kind: &InstructionKind| matches!(kind, InstructionKind::Run(_));
    let Some(run) = stage.instructions.iter().find(|it| is_run(&it.instruction.kind)) else {
        return Ok(());
    };
    let platform = &stage.platform;
    let span = match run.is_trigger {
        true => stage.from,
        false => run.instruction.keyword.span,
    };
    let message = match request.emulators.find(platform) {
        None => format!("this machine cannot run programs for {platform}"),
        Some(emulator) => format!(
            "programs for {platform} run here in {}, which is not found from within an image",
            emulator.interpreter
        ),
    };
    let mut problem = plan::error(message, span);
    let machine = &request.plan.build_platform;
    problem.note = Some(match request.emulators.find(platform) {
        None => format!("it is {machine}, and no emulator is registered with its kernel"),
        Some(_) => "it is registered with the kernel without the flag F".to_owned(),
    });
    problem.hint = Some(format!(
        "register one, with `apt install qemu-user-static` or `docker run --privileged --rm \
         tonistiigi/binfmt --install {}`; or cross-compile: begin the stage with `FROM \
         --platform=$BUILDPLATFORM`, and COPY what it makes into one that runs nothing",
        platform.architecture
    ));
    Err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AARCH64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\n\
        flags: POCF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\n\
        mask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    fn read(files: &[(&str, &str)]) -> Emulators {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs_err::write(directory.path().join(name), text).unwrap();
        }
        Emulators::read(directory.path())
    }

    #[test]
    fn finds_what_the_kernel_would() {
        let s390x = "enabled\ninterpreter /usr/bin/qemu-s390x-static\nflags: \noffset 0\n\
            magic 7f454c4602020100000000000000000000020016\n\
            mask ffffffffffffff00fffffffffffffffffffeffff\n";
        let python = "enabled\ninterpreter /usr/bin/python3\nflags: \noffset 0\nmagic cb0d0d0a\n";
        let found = read(&[
            ("qemu-aarch64", AARCH64),
            ("qemu-s390x", s390x),
            ("python3.11", python),
            ("ext", "enabled\ninterpreter /usr/bin/wine\nflags: \nextension .exe\n"),
            ("status", "enabled\n"),
            ("register", ""),
        ]);
        assert_eq!(found.0.len(), 3);
        let interpreter = |text| {
            let emulator = found.find(&platform(text))?;
            Some((emulator.interpreter.as_str(), emulator.is_open))
        };
        let aarch64 = "/usr/libexec/qemu-binfmt/aarch64-binfmt-P";
        assert_eq!(interpreter("linux/arm64"), Some((aarch64, true)));
        assert_eq!(interpreter("linux/s390x"), Some(("/usr/bin/qemu-s390x-static", false)));
        assert_eq!(interpreter("linux/arm/v7"), None);
        assert_eq!(interpreter("linux/riscv64"), None);
        assert_eq!(interpreter("linux/unheard"), None);
    }

    #[test]
    fn what_is_off_is_not_there() {
        let off = AARCH64.replacen("enabled", "disabled", 1);
        assert_eq!(read(&[("a", &off)]), Emulators::default());
        assert_eq!(read(&[("a", AARCH64), ("status", "disabled\n")]), Emulators::default());
        assert_eq!(Emulators::read(Path::new("/nowhere")), Emulators::default());
        for torn in ["", "enabled", "enabled\ninterpreter x\nmagic 7", "enabled\nmagic zz\n"] {
            assert_eq!(read(&[("a", torn)]), Emulators::default(), "{torn}");
        }
    }

    #[test]
    fn some_machines_run_more_than_their_own() {
        for (machine, image, expected) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "linux/386", true),
            ("linux/amd64", "linux/arm64", false),
            ("linux/arm64", "linux/arm/v7", true),
            ("linux/amd64", "windows/amd64", false),
            ("linux/amd64", "linux/amd64/v9", false),
        ] {
            assert_eq!(runs_natively(&platform(machine), &platform(image)), expected, "{image}");
        }
    }
}
