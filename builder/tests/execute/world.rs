//! An image, an executor, and what a test says about them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use boatyard_builder::execute::{
    CancelHandle, ChrootExecutor, Execute, ExecuteError, Executor, InitCommand, Network, Outcome,
    Output, Spec, stubs,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// An image with busybox, a layer being written, and an executor.
pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) executor: Runner,
}

/// What a step wrote.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Output for Written {
    fn stdout(&mut self, bytes: &[u8]) {
        self.stdout.extend_from_slice(bytes);
    }
    fn stderr(&mut self, bytes: &[u8]) {
        self.stderr.extend_from_slice(bytes);
    }
}

/// How a step went.
pub(crate) struct Ran {
    pub(crate) result: Result<Outcome, ExecuteError>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    /// An image with a shell, and with the directories and accounts of any distribution.
    pub(crate) fn new() -> World {
        let world = World::empty();
        for directory in ["bin", "etc", "home/ada", "root", "tmp", "usr/bin", "proc", "sys", "dev"]
        {
            fs_err::create_dir_all(world.image().join(directory)).unwrap();
        }
        world.add_shell();
        world
            .write("etc/passwd", "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n");
        world.write("etc/group", "root:x:0:\nada:x:1000:\nwheel:x:10:ada\n");
        world
    }

    /// An image without anything: `FROM scratch`.
    pub(crate) fn empty() -> World {
        let dir = tempfile::tempdir().unwrap();
        for directory in ["image", "stubs", "upper", "work"] {
            fs_err::create_dir(dir.path().join(directory)).unwrap();
        }
        stubs::create(&dir.path().join("stubs"), &stubs::STANDARD).unwrap();
        let init =
            InitCommand { program: PathBuf::from("/proc/self/exe"), args: vec!["init".into()] };
        World { dir, executor: Runner::start(init) }
    }

    pub(crate) fn add_shell(&self) {
        let bin = self.image().join("bin");
        fs_err::create_dir_all(&bin).unwrap();
        fs_err::copy("/bin/busybox", bin.join("busybox"))
            .expect("these tests need a static busybox at /bin/busybox (Debian: busybox-static)");
        let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
        for applet in String::from_utf8(list.stdout).unwrap().lines() {
            if applet != "busybox" {
                symlink("busybox", bin.join(applet)).unwrap();
            }
        }
    }

    /// Adds `probe`, which makes the system calls that it is told to.
    pub(crate) fn add_probe(&self) {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/execute/probe.c");
        let built = Command::new("cc")
            .args(["-O1", "-static", "-D_GNU_SOURCE", "-o"])
            .args([&self.image().join("bin/probe"), &PathBuf::from(source)])
            .status()
            .expect("these tests need a C compiler (Debian: gcc libc6-dev)");
        assert!(built.success());
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.image().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }

    /// The image under the layer being written, as the snapshotter mounts it, or a copy of it.
    pub(crate) fn root(&self) -> OwnedFd {
        if Way::chosen() == Way::Chroot {
            return self.copy();
        }
        self.overlay(&[self.image(), self.path("stubs")])
    }

    /// The same without stubs: the executor makes what is missing.
    pub(crate) fn root_without_stubs(&self) -> OwnedFd {
        self.overlay(&[self.image()])
    }

    /// What the step writes, and a test wants to look at: the layer, or the copy.
    pub(crate) fn written(&self) -> PathBuf {
        self.path(match Way::chosen() {
            Way::Namespaces => "upper",
            Way::Chroot => "copy",
        })
    }

    /// Copies the image, the first time that it is asked for.
    fn copy(&self) -> OwnedFd {
        let copy = self.written();
        if !copy.exists() {
            let copied = Command::new("cp").arg("-a").arg(self.image()).arg(&copy).status();
            assert!(copied.unwrap().success());
        }
        fs_err::File::open(copy).unwrap().into_file().into()
    }

    fn overlay(&self, lower: &[PathBuf]) -> OwnedFd {
        let lower: Vec<&str> = lower.iter().map(|path| path.to_str().unwrap()).collect();
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_set_string(&context, "lowerdir", lower.join(":").as_str()).unwrap();
        fsconfig_set_string(&context, "upperdir", self.path("upper")).unwrap();
        fsconfig_set_string(&context, "workdir", self.path("work")).unwrap();
        fsconfig_create(&context).unwrap();
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
    }

    /// Runs a shell script as root.
    pub(crate) fn sh(&self, script: &str) -> Ran {
        self.run(&Spec::new(["/bin/sh", "-c", script]))
    }

    pub(crate) fn run(&self, spec: &Spec) -> Ran {
        self.run_in(self.root(), spec, &CancelHandle::new().unwrap())
    }

    pub(crate) fn run_in(&self, root: OwnedFd, spec: &Spec, cancel: &CancelHandle) -> Ran {
        let mut written = Written::default();
        let result = self.executor.run(root, spec, &mut written, cancel);
        Ran {
            result,
            stdout: String::from_utf8_lossy(&written.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&written.stderr).into_owned(),
        }
    }

    /// What the layer holds: paths with a letter for the type.
    pub(crate) fn layer(&self) -> Vec<String> {
        if Way::chosen() == Way::Chroot {
            return self.changes();
        }
        let found = tree(&self.path("upper"));
        found.iter().map(|(path, (kind, _))| format!("{kind} {}", path.display())).collect()
    }

    /// Where the copy differs from the image, told as an overlay would: `?` is what was removed.
    fn changes(&self) -> Vec<String> {
        let (before, after) = (tree(&self.image()), tree(&self.written()));
        let mut changes = BTreeMap::new();
        for path in before.keys().filter(|path| !after.contains_key(*path)) {
            changes.insert(path.clone(), '?');
        }
        for (path, entry) in after.iter().filter(|(path, entry)| before.get(*path) != Some(*entry))
        {
            changes.insert(path.clone(), entry.0);
        }
        changes.iter().map(|(path, kind)| format!("{kind} {}", path.display())).collect()
    }
}

/// How steps run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In namespaces of their own, on an overlay.
    Namespaces,
    /// In a directory, with nothing of their own.
    Chroot,
}

thread_local! {
    static WAY: Cell<Way> = const { Cell::new(Way::Namespaces) };
}

impl Way {
    /// Makes this the way of all worlds of this thread.
    pub(crate) fn choose(self) {
        WAY.set(self);
    }

    pub(crate) fn chosen() -> Way {
        WAY.get()
    }
}

/// The executor that is being tested.
pub(crate) enum Runner {
    Namespaces(Executor),
    Chroot(ChrootExecutor),
}

impl Runner {
    fn start(init: InitCommand) -> Runner {
        match Way::chosen() {
            Way::Namespaces => Runner::Namespaces(Executor::start(&init).unwrap()),
            Way::Chroot => Runner::Chroot(ChrootExecutor::new(init)),
        }
    }

    /// Runs a step. Without namespaces it has the network that is there.
    pub(crate) fn run(
        &self,
        root: OwnedFd,
        spec: &Spec,
        output: &mut dyn Output,
        cancel: &CancelHandle,
    ) -> Result<Outcome, ExecuteError> {
        match self {
            Runner::Namespaces(executor) => executor.run(root, spec, output, cancel),
            Runner::Chroot(executor) => {
                let spec = Spec { network: Network::Host, ..spec.clone() };
                executor.run(root, &spec, output, cancel)
            }
        }
    }

    /// The process id of the helper that runs as long as the executor.
    pub(crate) fn helper_id(&self) -> u32 {
        match self {
            Runner::Namespaces(executor) => executor.helper_id(),
            Runner::Chroot(_) => unreachable!("each step has a helper of its own"),
        }
    }
}

/// The paths of a tree, with a letter for the kind and what a layer would say of each.
fn tree(root: &Path) -> BTreeMap<PathBuf, (char, String)> {
    let mut found = BTreeMap::new();
    walk(root, &mut found);
    let relative = |path: &Path| path.strip_prefix(root).unwrap().to_owned();
    found.into_iter().map(|(path, entry)| (relative(&path), entry)).collect()
}

fn walk(directory: &Path, found: &mut BTreeMap<PathBuf, (char, String)>) {
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs_err::symlink_metadata(&path).unwrap();
        let kind = match metadata.mode() & libc::S_IFMT {
            libc::S_IFDIR => 'd',
            libc::S_IFREG => 'f',
            libc::S_IFLNK => 'l',
            _ => '?',
        };
        let content = match kind {
            'f' => format!("{:?}", fs_err::read(&path).unwrap()),
            'l' => format!("{:?}", fs_err::read_link(&path).unwrap()),
            _ => String::new(),
        };
        let (owner, time) = ((metadata.uid(), metadata.gid()), metadata.modified().unwrap());
        let said = format!("{:o} {owner:?} {time:?} {content}", metadata.mode());
        found.insert(path.clone(), (kind, said));
        if kind == 'd' {
            walk(&path, found);
        }
    }
}

impl Ran {
    /// The output of a step that succeeded and did not complain.
    #[track_caller]
    pub(crate) fn stdout(&self) -> &str {
        assert!(
            matches!(self.result, Ok(Outcome::Exited(0))),
            "{:?}\nstdout: {}\nstderr: {}",
            self.result,
            self.stdout,
            self.stderr
        );
        assert_eq!(self.stderr, "");
        &self.stdout
    }

    #[track_caller]
    pub(crate) fn outcome(&self) -> Outcome {
        *self.result.as_ref().unwrap()
    }

    /// The error with its causes, as a person sees it.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        let error = self.result.as_ref().expect_err("the step should not have run");
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}
