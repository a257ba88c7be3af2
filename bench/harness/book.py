"""What the readers of the book suffer from, and how long it takes with each builder.

Cold: in a store that knows nothing. Cached: once more, nothing changed.
"""

import shutil
import subprocess

from . import builders, contexts, machine, servers
from .table import result


class Figures:
    """Values by what was measured and with which tool, in the order in which they came."""

    def __init__(self):
        self.values = {}

    def add(self, what, tool, value, unit="s", note=""):
        self.values.setdefault((what, unit), {}).setdefault((tool.name, note), []).append(value)

    def results(self):
        return [
            result(what, name, unit, values, better="lower", note=note)
            for (what, unit), by_tool in self.values.items()
            for (name, note), values in by_tool.items()
        ]


def measure(binary, world, options):
    figures = Figures()
    with builders.all_of(binary, world) as tools:
        for number in range(options.rounds):
            for part in PARTS:
                place = world / f"{part.__name__}-{number}"
                place.mkdir()
                part(place, tools, figures)
                shutil.rmtree(place)
        compress(world, tools[0], figures)
    return figures.results()


def cold_and_cached(context, tools, figures, title):
    for tool in tools:
        tool.fresh()
        seconds, memory = tool.build(context.path, "bench")
        figures.add(f"{title}, cold", tool, seconds)
        if not isinstance(tool, builders.Docker):
            figures.add(f"{title}, peak memory", tool, memory, unit="MB")
        figures.add(f"{title}, cached", tool, tool.build(context.path, "bench")[0])


def ten_steps(world, tools, figures):
    cold_and_cached(contexts.steps(world, 10), tools, figures, "10 RUN steps")


def hundred_steps(world, tools, figures):
    cold_and_cached(contexts.steps(world, 100), tools, figures, "100 RUN steps")


def files_20000(world, tools, figures):
    cold_and_cached(contexts.tree(world, 20_000, 200), tools, figures, "COPY of 20,000 files, 200 MB")


def files_30000(world, tools, figures):
    cold_and_cached(contexts.tree(world, 30_000, 60), tools, figures, "COPY of 30,000 files, 60 MB")


def files_50000(world, tools, figures):
    cold_and_cached(contexts.tree(world, 50_000, 50), tools, figures, "COPY of 50,000 files, 50 MB")


def one_large_file(world, tools, figures):
    cold_and_cached(contexts.one_large(world, 1000), tools, figures, "COPY of one file of 1 GB")


def dd_layer(world, tools, figures):
    """512 MB in a layer, built and pushed, each to a registry of the kind that goes with it."""
    context = contexts.dd(world, 512)
    for tool in tools:
        start = servers.boatyard if isinstance(tool, builders.Boatyard) else servers.docker_registry
        (world / tool.name).mkdir()
        server = start(world / tool.name)
        try:
            tool.fresh()
            built = tool.build(context.path, "bench")[0]
            pushed = tool.push("bench", f"127.0.0.1:{server.port}")[0]
        finally:
            server.stop()
        figures.add("512 MB by dd, built", tool, built)
        figures.add("512 MB by dd, pushed", tool, pushed)
        figures.add("512 MB by dd, built and pushed", tool, built + pushed)


def one_line_change(world, tools, figures):
    for tool in tools:
        context = contexts.dependencies(tool_place(world, tool))
        tool.fresh()
        figures.add("dependencies, cold", tool, tool.build(context.path, "bench")[0])
        context.write("app.rb", "puts 2\n")
        figures.add("dependencies, one line changed", tool, tool.build(context.path, "bench")[0])


def forgotten_git(world, tools, figures):
    context = contexts.forgotten_git(world, 1000)
    for tool in tools:
        tool.fresh()
        figures.add(".git of 1 GB, copied", tool, tool.build(context.path, "bench")[0])
        if isinstance(tool, builders.Docker) and not tool.buildkit or tool.name == "buildah":
            # These know `.dockerignore` alone.
            (context.path / ".dockerignore").write_text(".git\n")
        seconds, _ = tool.build(context.path, "bench", "Dockerfile.ignoring")
        (context.path / ".dockerignore").unlink(missing_ok=True)
        figures.add(".git of 1 GB, ignored", tool, seconds)


def tool_place(world, tool):
    place = world / tool.name
    place.mkdir()
    return place


def compress(world, boatyard, figures):
    """A layer of this machine's libraries: built with gzip and without, and pigz on its bytes."""
    pigz = machine.find("pigz")
    if not pigz:
        return
    context = contexts.Context(world, "gzip", "COPY lib /lib\n")
    subprocess.run(["cp", "-rL", "/usr/lib/python3", context.path / "lib"], check=False,
                   stderr=subprocess.DEVNULL)
    subprocess.run(f"find /usr/lib/*-linux-gnu -maxdepth 1 -name '*.so*' -type f "
                   f"| head -400 | xargs cp -t {context.path}/lib", shell=True, check=False)
    archive = world / "lib.tar"
    subprocess.run(["tar", "-C", context.path, "-cf", archive, "lib"], check=True)
    for _ in range(3):
        boatyard.fresh()
        with_gzip, _ = boatyard.build(context.path, "bench")
        boatyard.fresh()
        without, _ = boatyard.build(context.path, "bench", options=["--compression=none"])
        figures.add("gzip of a layer", boatyard, with_gzip, note=f"{without:.2f} s without gzip")
        seconds, _ = builders.run(["sh", "-c", f"{pigz} -6 -c {archive} > /dev/null"])
        figures.values.setdefault(("gzip of a layer", "s"), {}).setdefault(
            ("pigz -6", f"{archive.stat().st_size / 1e6:.0f} MB"), []).append(seconds)
    archive.unlink()


PARTS = (ten_steps, hundred_steps, files_20000, files_30000, files_50000, one_large_file, dd_layer,
         one_line_change, forgotten_git)
