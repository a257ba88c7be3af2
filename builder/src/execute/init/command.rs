//! The second process of a step: the last steps before the command takes over.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, accessat, openat, stat};
use rustix::io::Errno;
use rustix::process::{chdir, getcwd, ioctl_tiocsctty, setsid, umask};

use super::{privileges, single};
use crate::execute::environment;
use crate::execute::failure::{During, Failure};
use crate::execute::seccomp;
use crate::execute::spec::{Security, Spec};
use crate::execute::sys;
use crate::execute::wire::Request;
use crate::ids;

/// Becomes the command; returns only if that fails.
pub(super) fn run(
    request: &Request,
    spec: &Spec,
    terminal: Option<&OwnedFd>,
    filter: &seccomp::Program,
) -> Result<Infallible, Failure> {
    setsid().during("start", "a session")?;
    sys::reset_signals();
    match terminal {
        Some(terminal) => take(terminal).during("take", "the terminal")?,
        None => redirect(request)?,
    }
    privileges::limit(&spec.rlimits)?;
    enter(&spec.cwd)?;
    if spec.security == Security::Sandboxed {
        // Without no_new_privs, which would break sudo, this takes CAP_SYS_ADMIN, which the next
        // line gives up.
        sys::load_filter(filter).during("load", "the filter of system calls")?;
    }
    // Asked of this process, which is still root.
    let has_one_id = ids::is_single();
    privileges::become_user(&spec.user, spec.security)?;
    let mut environment = environment::of_step(spec);
    if has_one_id {
        // After our own calls of the kind, which must not be pretended.
        single::pretend(&mut environment)?;
    }
    execute(spec, &environment)
}

/// Executes the command, as whoever this process is; returns only if that fails.
pub(in crate::execute) fn execute(
    spec: &Spec,
    environment: &[(String, String)],
) -> Result<Infallible, Failure> {
    umask(Mode::from_raw_mode(spec.umask));
    let program = find(spec.args.first().map_or("", String::as_str), environment)?;
    let arguments = strings(spec.args.iter().cloned(), &program)?;
    let variables = environment.iter().map(|(name, value)| format!("{name}={value}"));
    let variables = strings(variables, &program)?;
    let path = strings([program.clone()], &program)?.remove(0);
    // All other descriptors close by themselves: each was opened to be closed here.
    Err(execute_failure(program, sys::execute(&path, &arguments, &variables)))
}

/// Makes a terminal the session's, and all three standard streams.
fn take(terminal: &OwnedFd) -> Result<(), Errno> {
    ioctl_tiocsctty(terminal)?;
    rustix::stdio::dup2_stdin(terminal)?;
    rustix::stdio::dup2_stdout(terminal)?;
    rustix::stdio::dup2_stderr(terminal)
}

/// Makes the pipes the standard output and error, and the standard input what there is, or nothing.
fn redirect(request: &Request) -> Result<(), Failure> {
    if let Some(stdin) = &request.stdin {
        rustix::stdio::dup2_stdin(stdin).during("redirect", "standard input")?;
    } else {
        let null = openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .during("open", "/dev/null")?;
        rustix::stdio::dup2_stdin(&null).during("redirect", "standard input")?;
    }
    rustix::stdio::dup2_stdout(&request.stdout).during("redirect", "standard output")?;
    rustix::stdio::dup2_stderr(&request.stderr).during("redirect", "standard error")
}

pub(in crate::execute) fn enter(cwd: &str) -> Result<(), Failure> {
    const ENTER: &str = "enter the working directory";
    chdir(cwd).during(ENTER, cwd)?;
    // CVE-2024-21626: a directory outside of the root has no absolute path.
    let now = getcwd(Vec::new()).during(ENTER, cwd)?;
    if now.as_bytes().starts_with(b"/") { Ok(()) } else { Err(Errno::XDEV).during(ENTER, cwd) }
}

/// Returns the path of `program`, as a shell would find it.
fn find(program: &str, environment: &[(String, String)]) -> Result<String, Failure> {
    if program.is_empty() {
        return Err(Failure::NoCommand);
    }
    if program.contains('/') {
        return Ok(program.to_owned());
    }
    let path = environment.iter().find(|(name, _)| name == "PATH").map_or("", |(_, path)| path);
    let mut denied = None;
    for directory in path.split(':') {
        // An empty entry is the working directory.
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{directory}/{program}");
        match executable(&candidate) {
            Ok(true) => return Ok(candidate),
            Err(Errno::ACCESS) => denied = Some(candidate),
            _ => {}
        }
    }
    match denied {
        Some(program) => Ok(program),
        None => Err(Failure::NotInPath { program: program.to_owned(), path: path.to_owned() }),
    }
}

fn executable(path: &str) -> Result<bool, Errno> {
    if FileType::from_raw_mode(stat(path)?.st_mode) != FileType::RegularFile {
        return Ok(false);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).map(|()| true)
}

fn strings(
    texts: impl IntoIterator<Item = String>,
    program: &str,
) -> Result<Vec<CString>, Failure> {
    // Neither an argument nor a variable can hold a zero byte.
    let texts: Result<_, Errno> =
        texts.into_iter().map(|text| CString::new(text).map_err(|_| Errno::INVAL)).collect();
    texts.map_err(|errno| Failure::Execute {
        program: program.to_owned(),
        errno: errno.raw_os_error(),
    })
}

fn execute_failure(program: String, errno: Errno) -> Failure {
    match errno {
        Errno::NOENT if stat(&program).is_ok() => Failure::NoInterpreter { program },
        Errno::NOENT => Failure::NoProgram { program },
        Errno::NOEXEC => Failure::NotAProgram { program },
        errno => Failure::Execute { program, errno: errno.raw_os_error() },
    }
}
