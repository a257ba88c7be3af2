"""How long builds take: a small one of several stages, and one that copies 5,000 files.

Cold: in an empty store. Warm: once more, nothing changed. Changed: one file of the context is
another. The base is a tar with a static busybox, so that no registry takes part.
"""

import os
import subprocess
import tarfile
import time

from . import machine
from .table import result

STAGES = """\
FROM scratch AS base
ADD base.tar /
FROM base AS left
RUN seq 1 20000 > /left
FROM base AS right
RUN seq 20000 40000 > /right
FROM base
WORKDIR /app
COPY --from=left /left .
COPY --from=right /right .
COPY one.txt .
RUN cat left right one.txt > all && rm left right
ENV PORT=8080
CMD ["/bin/sh"]
"""
FILES = "FROM scratch\nCOPY files /srv/files\n"
FILES_COUNT = 5000


def measure(binary, world, options):
    contexts = {"stages": stages(world), "5,000 files": files(world)}
    tools = {"boatyard": Boatyard(binary)}
    if machine.find("buildah") and os.geteuid() == 0:
        tools["buildah"] = Buildah(machine.find("buildah"))
    seconds, stores = {}, []
    for number in range(options.rounds):
        for title, (context, changing) in contexts.items():
            for name, tool in tools.items():
                # A plain name: overlay's options cannot hold a comma.
                store = world / f"{name}-{context.name}-{number}"
                for state in ("cold", "warm", "changed"):
                    if state == "changed":
                        changing.write_text(f"{name} {number}\n")
                    spent = timed(tool.command(store, context))
                    seconds.setdefault((title, state), {}).setdefault(name, []).append(spent)
                stores.append((tool, store))
    # Not before: creating files takes several times as long just after many were deleted.
    for tool, store in stores:
        tool.forget(store)
    return [
        result(f"build, {title}, {state}", name, "s", values, better="lower")
        for (title, state), by_tool in seconds.items()
        for name, values in by_tool.items()
    ]


def timed(command):
    os.sync()
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"error: {command[0]} failed:\n{done.stderr}")
    return time.monotonic() - start


class Boatyard:
    def __init__(self, binary):
        self.binary = binary

    def command(self, store, context):
        return [self.binary, "--root", store, "build", "-t", "bench", context]

    def forget(self, store):
        subprocess.run(["rm", "-rf", store], check=True)


class Buildah:
    def __init__(self, binary):
        self.binary = binary

    def base(self, store):
        return [self.binary, "--root", store / "root", "--runroot", store / "run"]

    def command(self, store, context):
        return [*self.base(store), "bud", "--layers", "--isolation", "chroot", "-t", "bench", context]

    def forget(self, store):
        subprocess.run([*self.base(store), "rmi", "-af"], capture_output=True)
        # Its storage may have mounted itself.
        subprocess.run(["umount", store / "root" / "overlay"], capture_output=True)
        subprocess.run(["rm", "-rf", "--one-file-system", store], check=False)


def stages(world):
    context = world / "context-stages"
    context.mkdir()
    (context / "Dockerfile").write_text(STAGES)
    (context / "one.txt").write_text("one\n")
    with tarfile.open(context / "base.tar", "w") as base:
        base.add(machine.find("busybox"), "bin/busybox")
        for name in ("sh", "seq", "cat", "rm"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            base.addfile(link)
    return context, context / "one.txt"


def files(world):
    context = world / "context-files"
    for number in range(FILES_COUNT):
        path = context / "files" / f"{number % 50:02}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"file {number}\n" * (number % 200))
    (context / "Dockerfile").write_text(FILES)
    return context, context / "files" / "00" / "0.txt"
