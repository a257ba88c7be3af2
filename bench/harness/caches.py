"""A CI machine that has built nothing yet, and a cache in a registry that has all of the build.

One machine builds, and exports its cache to docker-registry. Then a machine whose store is empty builds
the same and pushes the image to the same registry: nothing is to be built, so what is measured is how
long finding that out takes, and how many bytes pass between the two, both ways.

BuildKit as dockerd has it reads caches from an image (`type=inline`) only; a buildkitd of its own, which
Debian does not have, takes part with `type=registry` where `buildkitd` and `buildctl` are found.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time

from . import builders, contexts, machine, servers
from .table import result

MEGABYTES = 40


class Relay:
    """A port that passes everything on to a server, and counts it."""

    def __init__(self, port):
        self.server_port, self.bytes, self.lock = port, 0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.server_port))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self.copy, args=pair, daemon=True).start()

    def copy(self, source, to):
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                to.sendall(block)
                with self.lock:
                    self.bytes += len(block)
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def taken(self):
        with self.lock:
            taken, self.bytes = self.bytes, 0
        return taken

    def close(self):
        self.listener.close()


class BuildKit:
    """A buildkitd of our own."""

    name = "BuildKit"

    def __init__(self, world):
        self.world, self.number, self.process = world, 0, None

    def fresh(self):
        self.forget()
        self.number += 1
        root = self.world / f"buildkit-{self.number}"
        self.address = f"unix://{self.world}/buildkit-{self.number}.sock"
        self.process = subprocess.Popen(
            [machine.find("buildkitd"), "--root", root, "--addr", self.address,
             "--oci-worker-net", "host"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while subprocess.run(["buildctl", "--addr", self.address, "debug", "workers"],
                             capture_output=True).returncode:
            if self.process.poll() is not None:
                raise SystemExit("error: buildkitd did not start")
            time.sleep(0.1)

    def cached(self, context, host, tag):
        cache = f"type=registry,ref={host}/cache:{tag},registry.insecure=true"
        return builders.run([
            "buildctl", "--addr", self.address, "build", "--frontend", "dockerfile.v0",
            "--local", f"context={context}", "--local", f"dockerfile={context}",
            "--import-cache", cache, "--export-cache", cache + ",mode=max",
            "--output", f"type=image,name={host}/app:{tag},push=true,registry.insecure=true"])

    def forget(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            shutil.rmtree(self.world / f"buildkit-{self.number}", ignore_errors=True)
            self.process = None


def cached(tool, context, host, tag):
    """Builds with a cache in the registry, both ways, and pushes. Returns how long it took."""
    image = f"{host}/app:{tag}"
    if isinstance(tool, builders.Boatyard):
        return tool.build(context, image, options=("--cache", f"{host}/cache:{tag}", "--push"))[0]
    if isinstance(tool, builders.Buildah):
        name = f"{host}/cache-{tag}"
        took, _ = tool.build(context, image, options=(
            "--tls-verify=false", "--cache-from", name, "--cache-to", name))
        return took + builders.run([*tool.base(), "push", "--tls-verify=false", image])[0]
    if isinstance(tool, BuildKit):
        return tool.cached(context, host, tag)[0]
    options = ("--build-arg", "BUILDKIT_INLINE_CACHE=1", "--cache-from", image)
    took, _ = tool.build(context, image, options=options)
    return took + tool.command("push", image)[0]


@contextlib.contextmanager
def tools_of(binary, world):
    with builders.all_of(binary, world) as tools:
        known = [tool for tool in tools if tool.name != "docker (classic)"]
        if os.geteuid() == 0 and machine.find("buildkitd") and machine.find("buildctl"):
            known.append(BuildKit(world))
        try:
            yield known
        finally:
            for tool in known:
                tool.forget()


def measure(binary, world, options):
    """Measures each tool on a store that is empty each time."""
    context = contexts.Context(world, "cached", (
        f"RUN dd if=/dev/urandom of=/dependencies bs=1M count={MEGABYTES}\n"
        "WORKDIR /app\nCOPY app .\n"
        f"RUN dd if=/dev/urandom of=/compiled bs=1M count={MEGABYTES}\n"
    ))
    context.write("app", "one\n")
    server = servers.docker_registry(world)
    relay = Relay(server.port)
    host = f"127.0.0.1:{relay.port}"
    seconds, moved = {}, {}
    try:
        with tools_of(binary, world) as tools:
            for number, tool in enumerate(tools):
                tool.fresh()
                cached(tool, context.path, host, f"t{number}")
            for _ in range(options.rounds):
                for number, tool in enumerate(tools):
                    tool.fresh()
                    relay.taken()
                    seconds.setdefault(tool.name, []).append(
                        cached(tool, context.path, host, f"t{number}"))
                    moved.setdefault(tool.name, []).append(relay.taken() / 1e6)
    finally:
        relay.close()
        server.stop()
    title = "cached build and push, empty machine"
    note = {"docker (BuildKit)": "type=inline"}
    return [
        result(title + what, name, unit, values, better="lower", note=note.get(name, ""))
        for what, unit, measured in (("", "s", seconds), (", bytes moved", "MB", moved))
        for name, values in measured.items()
    ]
