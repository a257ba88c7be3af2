"""What an update costs a machine without a network: a line changes in an image of 500 MB."""

import os
import shutil

from .builders import run
from .table import result

FILES = 500
FILE_BYTES = 1_000_000


def measure(binary, world, options):
    place = world / "bundles"
    context = place / "context"
    files(context)
    sender, receiver = place / "sender", place / "receiver"
    values = {}
    try:
        build(binary, sender, context, 0)
        whole = place / "whole.tar"
        run([binary, "--root", sender, "save", "--format", "oci-archive", "-o", whole, "app:0"])
        run([binary, "--root", receiver, "load", "-i", whole])
        for number in range(1, options.rounds + 1):
            old, new = f"app:{number - 1}", f"app:{number}"
            build(binary, sender, context, number)
            bundle = place / "bundle.tar"
            for name, archive, since in (("bundle", bundle, ["--since", old]),
                                         ("whole archive", whole, ["--format", "oci-archive"])):
                seconds, memory = run([binary, "--root", sender, "save", *since, "-o", archive, new])
                add(values, "a line of 500 MB, save", name, "s", seconds)
                add(values, "a line of 500 MB, save, peak memory", name, "MB", memory)
                add(values, "a line of 500 MB, archive", name, "MB", archive.stat().st_size / 1e6)
            seconds, memory = run([binary, "--root", receiver, "load", "-i", bundle])
            add(values, "a line of 500 MB, load", "bundle", "s", seconds)
            add(values, "a line of 500 MB, load, peak memory", "bundle", "MB", memory)
            empty = place / "empty"
            seconds, memory = run([binary, "--root", empty, "load", "-i", whole])
            add(values, "a line of 500 MB, load", "whole archive", "s", seconds)
            add(values, "a line of 500 MB, load, peak memory", "whole archive", "MB", memory)
            shutil.rmtree(empty)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return [result(what, name, unit, measured, better="lower")
            for (what, name, unit), measured in values.items()]


def add(values, what, name, unit, value):
    values.setdefault((what, name, unit), []).append(value)


def files(context):
    (context / "files").mkdir(parents=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY files /srv\n")
    for number in range(FILES):
        (context / "files" / f"{number}.bin").write_bytes(os.urandom(FILE_BYTES))


def build(binary, root, context, number):
    lines = "".join(f"echo line {line}\n" for line in range(5000))
    (context / "files" / "run").write_text(f"{lines}echo version {number}\n")
    run([binary, "--root", root, "build", "-q", "-t", f"app:{number}", context])
