//! The terminal of this process as the screen of a command that has a terminal of its own.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::io::{Errno, retry_on_intr};
use rustix::stdio;
use rustix::termios::{
    OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// How much is passed on at once.
const CHUNK_BYTES: usize = 16 << 10;
/// What tells a program at a terminal that nothing more comes.
const END_OF_INPUT: &[u8] = b"\x04";

/// A command's terminal, shown on ours. Ours is as it was when this is dropped, after everything
/// that the command wrote was shown.
pub struct Screen {
    /// What ours was; `None` where there is none, or nothing is typed on it.
    before: Option<Termios>,
    output: Option<JoinHandle<()>>,
    far: Arc<OwnedFd>,
}

impl Screen {
    /// Shows `far`, the other end of a command's terminal; what is typed goes there if
    /// `interactive`.
    pub fn attach(far: OwnedFd, interactive: bool) -> io::Result<Screen> {
        let far = Arc::new(far);
        follow_size(&far);
        let mut screen = Screen { before: None, output: None, far: Arc::clone(&far) };
        if interactive {
            screen.before = raw()?;
            let mut keys = File::from(far.try_clone()?);
            std::thread::spawn(move || {
                feed(&mut keys);
                let _ = keys.write_all(END_OF_INPUT);
            });
        }
        let output = Arc::clone(&far);
        screen.output = Some(std::thread::spawn(move || show(&output)));
        Ok(screen)
    }

    /// Returns the other end of the command's terminal, to be given our size when that changes.
    pub fn far(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.far)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(output) = self.output.take() {
            let _ = output.join();
        }
        if let Some(before) = &self.before {
            let _ = tcsetattr(stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Passes standard input on until it ends, or nobody reads.
pub fn feed(to: &mut impl Write) {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut stdin = io::stdin().lock();
    while let Ok(length) = stdin.read(&mut buffer) {
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Gives a command's terminal the size of ours.
pub fn follow_size(far: &OwnedFd) {
    let own = tcgetwinsize(stdio::stdin()).or_else(|_| tcgetwinsize(stdio::stdout()));
    let default = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = tcsetwinsize(far, own.unwrap_or(default));
}

/// Has our terminal pass on every key as it is; returns what it was.
fn raw() -> io::Result<Option<Termios>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let before = tcgetattr(stdio::stdin())?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(stdio::stdin(), OptionalActions::Now, &raw)?;
    Ok(Some(before))
}

/// Shows what the command writes until none of its processes has the terminal.
fn show(far: &OwnedFd) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match retry_on_intr(|| rustix::io::read(far, &mut buffer[..])) {
            // EIO is how a terminal says that its other side is closed.
            Ok(0) | Err(Errno::IO) => return,
            Ok(length) => {
                let mut stdout = io::stdout().lock();
                let _ = stdout.write_all(&buffer[..length]).and_then(|()| stdout.flush());
            }
            Err(_) => return,
        }
    }
}
