"""What the measurement needs of the machine: the peers, the binary, and words about both."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# The command that must be there, and the Debian package that has it.
NEEDED = {
    "docker-registry": "docker-registry",
    "nginx": "nginx-light",
    "wrk": "wrk",
    "busybox": "busybox-static",
}


# Peers of the cache proxy: they take part if they are there, or may be installed.
OF_PROXIES = {"apt-cacher-ng": "apt-cacher-ng", "squid": "squid"}


def find(command):
    """Returns where a command is; servers live in /usr/sbin, which not every PATH has."""
    return shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def install(allowed):
    """Installs the peers that are missing, without starting them as services."""
    missing = [package for command, package in NEEDED.items() if not find(command)]
    if not missing:
        return
    if not allowed or os.geteuid() != 0:
        sys.exit(f"error: missing: {' '.join(missing)}\nhint: apt-get install {' '.join(missing)}")
    fetch(missing)


def install_peers_of_proxies(allowed):
    """Installs those that are missing, where that is allowed."""
    missing = [package for command, package in OF_PROXIES.items() if not find(command)]
    if missing and allowed and os.geteuid() == 0:
        fetch(missing)


def fetch(packages):
    """Installs packages, and starts no service."""
    # In run level 1, invoke-rc.d starts no service: nginx must not take port 80.
    environment = {**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def binary(given):
    """Returns the boatyard to measure, built if nobody gave one."""
    if given:
        return str(pathlib.Path(given).resolve())
    subprocess.run(["cargo", "build", "--release"], cwd=REPOSITORY, check=True)
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--no-deps"],
        cwd=REPOSITORY, check=True, capture_output=True,
    )
    return json.loads(metadata.stdout)["target_directory"] + "/release/boatyard"


def about():
    """Says on what the figures were measured, without naming the machine."""
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {
        "cpus": os.cpu_count(),
        "cpu": cpu.group(1) if cpu else "unknown",
        "memory_gb": round(int(memory.group(1)) / 1e6),
        "kernel": os.uname().release,
        "load": os.getloadavg()[0],
        "commit": said("git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"),
        "docker-registry": said("docker-registry", "--version"),
        "nginx": said("nginx", "-v"),
        "buildah": said("buildah", "--version"),
        "squid": said("squid", "-v"),
    }


def said(command, *arguments):
    """Returns the first line that a command says, or None where it is not there."""
    path = find(command)
    if not path:
        return None
    result = subprocess.run([path, *arguments], capture_output=True, text=True)
    return (result.stdout + result.stderr).strip().partition("\n")[0]
