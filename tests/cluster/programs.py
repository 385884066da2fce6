"""Kubernetes' programs and helm, compiled from their Go modules as `programs/go.sum` pins them."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Final

import attrs

from cluster import cache
from cluster.commands import Progress, run

MODULE: Final = Path(__file__).parent / "programs"
NAMES: Final = (
    "helm",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
)
# Two at once: a compiler takes up to 1 GiB, and the linkers of six large programs more.
BUILD: Final = ("go", "build", "-p=2", "-buildvcs=false", "-trimpath", "-mod=readonly")


@attrs.frozen(kw_only=True)
class Versions:
    """What `go.mod` requires."""

    kubernetes: str
    helm: str


def versions() -> Versions:
    """Return the versions that are pinned."""
    text = (MODULE / "go.mod").read_text(encoding="utf-8")

    def of(module: str) -> str:
        found = re.search(rf"^\t{re.escape(module)} (v\S+)", text, re.MULTILINE)
        if found is None:
            message = f"{MODULE / 'go.mod'} does not require {module}"
            raise LookupError(message)
        return found[1]

    return Versions(kubernetes=of("k8s.io/kubernetes"), helm=of("helm.sh/helm/v4"))


def programs() -> Path:
    """Return the folder of the programs, after building them if they are not in the cache."""
    wanted = versions()
    pins = [(MODULE / name).read_bytes() for name in ("go.mod", "go.sum")]
    key = cache.digest(*pins, *BUILD, *link_flags(wanted), platform.machine())
    return cache.kept(f"programs-{wanted.kubernetes}-{key}", _build)


def link_flags(wanted: Versions) -> list[str]:
    """Return what tells the programs their version: a release is not compiled from a tag here."""
    release = wanted.kubernetes.removeprefix("v").split(".")
    values = {
        "k8s.io/component-base/version.gitVersion": wanted.kubernetes,
        "k8s.io/component-base/version.gitMajor": release[0],
        "k8s.io/component-base/version.gitMinor": release[1],
        "k8s.io/component-base/version.gitTreeState": "archive",
        "helm.sh/helm/v4/internal/version.version": wanted.helm,
    }
    return ["-s", "-w", *(f"-X={name}={value}" for name, value in values.items())]


def _build(target: Path) -> None:
    wanted = versions()
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",  # so that they run on any root
        "GOFLAGS": "",
        "GOTOOLCHAIN": "auto",  # an older Go fetches the one that go.mod names
    }
    cache.say(f"compiling Kubernetes {wanted.kubernetes} and helm {wanted.helm}, about 8 minutes")
    listed = run(["go", "list", "-deps", "tool"], directory=MODULE, environment=environment)
    total = len(listed.splitlines())
    progress = Progress(cache.say)
    compiled = 0

    def package(_: str) -> None:
        nonlocal compiled
        compiled += 1
        progress(f"compiled {compiled} of {total} packages")

    run(
        [*BUILD, "-v", f"-ldflags={' '.join(link_flags(wanted))}", f"-o={target}/", "tool"],
        directory=MODULE,
        environment=environment,
        each_line=package,
    )
    missing = [name for name in NAMES if not (target / name).exists()]
    if missing:
        message = f"the build made no {', '.join(missing)}"
        raise LookupError(message)
    cache.say(f"compiled in {progress.elapsed_s:.0f} s")
