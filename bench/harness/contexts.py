"""The build contexts that are measured: each a directory with its Dockerfiles."""

import os
import tarfile

from . import machine

# Every image begins with a static busybox that an ADD unpacks: no registry takes part.
BASE = "FROM scratch AS base\nADD base.tar /\nFROM base\n"


class Context:
    """A directory that is built."""

    def __init__(self, world, name, dockerfile):
        self.path, self.name = world / f"context-{name}", name
        self.path.mkdir()
        self.write("Dockerfile", BASE + dockerfile)
        base(self.path / "base.tar")

    def write(self, name, text):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def fill(self, name, megabytes):
        """Writes a file of bytes that do not compress."""
        with open(self.path / name, "wb") as file:
            for _ in range(megabytes):
                file.write(os.urandom(1_000_000))


def base(path):
    with tarfile.open(path, "w") as archive:
        archive.add(machine.find("busybox"), "bin/busybox")
        for name in ("sh", "seq", "cat", "rm", "dd", "sleep", "cp", "mkdir", "true"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name in ("tmp", "dev", "proc", "sys", "etc"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)


def steps(world, count):
    lines = "".join(f"RUN echo {number} > /{number}\n" for number in range(count))
    return Context(world, f"steps-{count}", lines)


def tree(world, count, megabytes):
    """A tree of files of one size, half of their bytes random."""
    context = Context(world, f"tree-{count}", "COPY files /srv/files\n")
    size = megabytes * 1_000_000 // count
    for number in range(count):
        path = context.path / "files" / f"{number % 200:03}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size // 2) + bytes(str(number), "ascii") * (size // 12))
    return context


def one_large(world, megabytes):
    context = Context(world, "large", "COPY large /srv/large\n")
    context.fill("large", megabytes)
    return context


def dd(world, megabytes):
    """The book's layer: zeros would be no layer to speak of, so the bytes are random."""
    return Context(world, "dd", f"RUN dd if=/dev/urandom of=/large bs=1M count={megabytes}\n")


def dependencies(world):
    """The book's Ruby example, with a step of a second in place of the download of the gems."""
    context = Context(world, "dependencies", (
        "WORKDIR /app\nCOPY Gemfile Gemfile.lock ./\n"
        "RUN sleep 5 && mkdir gems && cp Gemfile.lock gems/installed\n"
        "COPY . .\nRUN cat app.rb > built\nCMD [\"app.rb\"]\n"
    ))
    context.write("Gemfile", "gem 'rack'\n")
    context.write("Gemfile.lock", "rack (3.0)\n")
    context.write("app.rb", "puts 1\n")
    return context


def forgotten_git(world, megabytes):
    """The book's forgotten `.git`, with two Dockerfiles: one of them has an ignore file."""
    context = Context(world, "git", "COPY . /app\n")
    context.write("Dockerfile.ignoring", BASE + "COPY . /app\n")
    context.write("Dockerfile.ignoring.dockerignore", ".git\n")
    context.write("app.rb", "puts 1\n")
    (context.path / ".git").mkdir()
    context.fill(".git/pack", megabytes)
    return context


def removal(world):
    """The book's chained RUN, and the `rm` in a later layer."""
    make, remove = "dd if=/dev/urandom of=/large bs=1M count=100", "rm /large"
    context = Context(world, "removal", f"RUN {make}\nRUN {remove}\n")
    context.write("Dockerfile.chained", BASE + f"RUN {make} && {remove}\n")
    return context
