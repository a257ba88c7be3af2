//! The socket that a step finds, and what of its questions goes on to the agent.
//!
//! The protocol (draft-miller-ssh-agent): a message is a length, a type and a body; each question has
//! one answer, in order. A step may ask for the list of keys and for a signature. Anything else
//! (adding, removing and locking keys, extensions) is answered with a failure, and the agent never
//! hears of it: a Dockerfile shall use keys, and not change what whoever builds has in his agent.

use std::fs::Permissions;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use fs_err as fs;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::retry_on_intr;

/// The file of a socket, in the directory that is its own.
const SOCKET: &str = "agent";
/// What OpenSSH takes at most.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// How many programs of a step may talk to the agent at once.
const CONNECTIONS_MAX: usize = 64;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;

/// A socket that answers as long as this lives.
#[derive(Debug)]
pub(crate) struct Relay {
    path: PathBuf,
    end: Arc<OwnedFd>,
    listener: Option<JoinHandle<()>>,
}

/// Who may use the socket of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

impl Relay {
    /// Listens in a directory that nobody else uses, for an agent at a socket. `access` is given to
    /// the socket, its owner only where files can have one.
    pub(crate) fn start(
        directory: &Path,
        agent: PathBuf,
        access: Access,
        has_owners: bool,
    ) -> io::Result<Relay> {
        let path = directory.join(SOCKET);
        let listener = listen(directory)?;
        if has_owners {
            chown(&path, Some(access.uid), Some(access.gid))?;
        }
        fs::set_permissions(&path, Permissions::from_mode(access.mode))?;
        let end = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let ended = Arc::clone(&end);
        let listener = std::thread::Builder::new()
            .name("ssh-agent".to_owned())
            .spawn(move || serve(&listener, &agent, &ended))?;
        Ok(Relay { path, end, listener: Some(listener) })
    }

    /// Returns the socket.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It fails only if the counter is full: then it has ended already.
        let _ = rustix::io::write(&*self.end, &1_u64.to_ne_bytes());
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// Listens on a socket in a directory, however long the path of that is.
fn listen(directory: &Path) -> io::Result<UnixListener> {
    let directory = fs::File::open(directory)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", directory.file().as_raw_fd()))
}

/// Connects to a socket, however long its path is.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = fs::File::open(directory.unwrap_or(Path::new(".")))?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let short = format!("/proc/self/fd/{}", directory.file().as_raw_fd());
    UnixStream::connect(Path::new(&short).join(name))
}

fn serve(listener: &UnixListener, agent: &Path, end: &OwnedFd) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut watched = [PollFd::new(listener, PollFlags::IN), PollFd::new(end, PollFlags::IN)];
        let waited = retry_on_intr(|| poll(&mut watched, None));
        if waited.is_err() || !watched[1].revents().is_empty() {
            return;
        }
        let Ok((client, _)) = listener.accept() else { return };
        if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (agent, counted) = (agent.to_path_buf(), Arc::clone(&open));
        // It ends when the program of the step is gone, or the agent.
        let talking = std::thread::Builder::new().spawn(move || {
            let _ = talk(client, &agent);
            counted.fetch_sub(1, Ordering::SeqCst);
        });
        if talking.is_err() {
            open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Answers one program until it hangs up.
fn talk(mut client: UnixStream, agent: &Path) -> io::Result<()> {
    let mut agent = connect(agent)?;
    let mut message = Vec::new();
    while read_message(&mut client, &mut message)? {
        let may_pass = matches!(message.first(), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)));
        if may_pass {
            write_message(&mut agent, &message)?;
            if !read_message(&mut agent, &mut message)? {
                return Ok(());
            }
        } else {
            message = vec![FAILURE];
        }
        write_message(&mut client, &message)?;
    }
    Ok(())
}

/// Reads a message without its length; `false` at the end.
fn read_message(from: &mut UnixStream, message: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length == 0 || length > MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    message.resize(length, 0);
    from.read_exact(message)?;
    Ok(true)
}

fn write_message(to: &mut UnixStream, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that answers each question with what it was asked, until it is hung up on.
    fn echo(directory: &Path) -> PathBuf {
        let path = directory.join("echo");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut message = Vec::new();
                while read_message(&mut client, &mut message).unwrap_or(false) {
                    message.insert(0, 100);
                    write_message(&mut client, &message).unwrap();
                }
            }
        });
        path
    }

    #[test]
    fn only_listing_and_signing_reach_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        let agent = echo(directory.path());
        let access = Access { uid: 0, gid: 0, mode: 0o600 };
        let relay = Relay::start(directory.path(), agent, access, false).unwrap();
        let mode = fs::metadata(relay.path()).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600);
        let mut client = connect(relay.path()).unwrap();
        let mut ask = |question: &[u8]| {
            write_message(&mut client, question).unwrap();
            let mut answer = Vec::new();
            assert!(read_message(&mut client, &mut answer).unwrap());
            answer
        };
        assert_eq!(ask(&[REQUEST_IDENTITIES]), [100, REQUEST_IDENTITIES]);
        assert_eq!(ask(&[SIGN_REQUEST, 7, 8]), [100, SIGN_REQUEST, 7, 8]);
        // Add, remove, remove all, lock, unlock, a smart card, an extension, and what no one knows.
        for forbidden in [17, 18, 19, 20, 21, 22, 23, 25, 26, 27, 1, 9, 255] {
            assert_eq!(ask(&[forbidden, 1]), [FAILURE], "{forbidden}");
        }
        assert_eq!(ask(&[REQUEST_IDENTITIES]), [100, REQUEST_IDENTITIES]);
        // What is too long, or nothing at all, ends the conversation.
        let (mut long, mut rest) = (connect(relay.path()).unwrap(), Vec::new());
        long.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(long.read_to_end(&mut rest).unwrap_or(0), 0);
        drop(relay);
        assert!(UnixStream::connect(directory.path().join(SOCKET)).is_err());
    }
}
