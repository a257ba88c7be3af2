"""The tools that build images: Boatyard, buildah, and docker with its two builders.

Each has `build(context, tag, ...)`, `fresh()` (a store that knows nothing), and `forget()`.
"""

import contextlib
import os
import shutil
import subprocess
import time

from . import machine

# dockerd without a bridge: it needs no firewall, and a RUN has the host's network.
DOCKERD = ["--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-masq=false",
           "--storage-driver", "overlay2"]


def run(command, **options):
    """Runs a command, and returns how long it took and its peak memory in MB."""
    os.sync()
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"error: {command} failed:\n{said.decode(errors='replace')}")
    return time.monotonic() - start, used.ru_maxrss / 1000


class Boatyard:
    name = "boatyard"

    def __init__(self, binary, world):
        self.binary, self.world, self.number, self.store = binary, world, 0, None

    def fresh(self):
        self.number += 1
        self.store = self.world / f"boatyard-{self.number}"

    def build(self, context, tag, file="Dockerfile", options=()):
        return run([self.binary, "--root", self.store, "build", "--network=host", "-t", tag,
                    "-f", context / file, *options, context])

    def push(self, tag, host):
        run([self.binary, "--root", self.store, "tag", tag, f"{host}/{tag}"])
        return run([self.binary, "--root", self.store, "push", f"{host}/{tag}"])

    def forget(self):
        for number in range(1, self.number + 1):
            shutil.rmtree(self.world / f"boatyard-{number}", ignore_errors=True)


class Buildah:
    name = "buildah"

    def __init__(self, binary, world):
        self.binary, self.world, self.number, self.stores = binary, world, 0, []

    def fresh(self):
        self.number += 1
        self.stores.append(self.world / f"buildah-{self.number}")

    def base(self):
        return [self.binary, "--root", self.stores[-1] / "root", "--runroot", self.stores[-1] / "run"]

    def build(self, context, tag, file="Dockerfile", options=()):
        return run([*self.base(), "bud", "--layers", "--isolation", "chroot", "-t", tag,
                    "-f", context / file, *options, context])

    def push(self, tag, host):
        return run([*self.base(), "push", "--tls-verify=false", tag, f"docker://{host}/{tag}"])

    def forget(self):
        for store in self.stores:
            # Its storage may have mounted itself.
            subprocess.run(["umount", store / "root" / "overlay"], capture_output=True)
            subprocess.run(["rm", "-rf", "--one-file-system", store], check=False)


class Docker:
    """One of the two builders of a running dockerd."""

    def __init__(self, daemon, buildkit):
        self.daemon, self.buildkit = daemon, buildkit
        self.name = "docker (BuildKit)" if buildkit else "docker (classic)"

    def fresh(self):
        self.command("image", "prune", "-af")
        self.command("builder", "prune", "-af")

    def command(self, *words):
        environment = {**os.environ, "DOCKER_BUILDKIT": str(int(self.buildkit)),
                       "DOCKER_HOST": self.daemon.host}
        return run([self.daemon.client, *words], env=environment)

    def build(self, context, tag, file="Dockerfile", options=()):
        return self.command("build", "--network=host", "-t", tag, "-f", context / file, *options,
                            context)

    def push(self, tag, host):
        self.command("tag", tag, f"{host}/{tag}")
        return self.command("push", f"{host}/{tag}")

    def forget(self):
        pass


class Daemon:
    """A dockerd of our own, below a directory of our own."""

    def __init__(self, server, client, world):
        self.client, self.host = client, f"unix://{world}/docker.sock"
        self.log = open(world / "dockerd.log", "wb")
        self.process = subprocess.Popen(
            [server, *DOCKERD, "--data-root", world / "docker", "--exec-root", world / "docker-run",
             "-H", self.host, "-p", world / "docker.pid"],
            stdout=self.log, stderr=self.log,
        )
        deadline = time.monotonic() + 30
        while subprocess.run([client, "-H", self.host, "version"], capture_output=True).returncode:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"error: dockerd did not start; see {world}/dockerd.log")
            time.sleep(0.1)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


@contextlib.contextmanager
def all_of(binary, world):
    """Starts what must run, gives the tools, ours first, and ends all of it."""
    tools, daemon = [Boatyard(binary, world)], None
    root = os.geteuid() == 0
    if root and machine.find("buildah"):
        tools.append(Buildah(machine.find("buildah"), world))
    server, client = machine.find("dockerd"), "/usr/bin/docker"
    if root and server and os.path.exists(client):
        daemon = Daemon(server, client, world)
        tools += [Docker(daemon, buildkit=False), Docker(daemon, buildkit=True)]
    try:
        yield tools
    finally:
        for tool in tools:
            tool.forget()
        if daemon:
            daemon.stop()
