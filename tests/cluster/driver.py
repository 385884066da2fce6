"""The driver under test: the chart with an image of the working tree, on the node.

Its vault is `cluster.vault`; volumes are refreshed every `POLL_S` seconds.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import attrs

from cluster import volumes
from cluster.addresses import DRIVER_IMAGE, NODE
from cluster.cluster import is_ready
from cluster.images import PROJECT
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster.api import Thing
    from cluster.cluster import Cluster
    from cluster.vault import Vault

RELEASE: Final = "akvfs"
NAMESPACE: Final = "kube-system"
CHART: Final = PROJECT / "deploy" / "chart"
POLL_S: Final = 2
KEEPER: Final = "akvfs-keeper"
NODE_SERVER: Final = "secrets-store-csi-driver"
PROVIDER: Final = "csi-secrets-store-provider-azure"
DAEMON_SETS: Final = (KEEPER, NODE_SERVER, PROVIDER)
IMAGES: Final = {KEEPER: "keeper.image", NODE_SERVER: "linux.image"}
CONTAINERS: Final = {KEEPER: "keeper", NODE_SERVER: "secrets-store", PROVIDER: "provider"}
READY_TIMEOUT_S: Final = 90.0
HELM_TIMEOUT_S: Final = 60.0
WORKER_UID_BASE: Final = 2_000_000_000  # the chart's default


@attrs.frozen(kw_only=True)
class Driver:
    """The installed driver.

    Attributes:
        cluster: Where it is installed.
        vault: What its provider reads.
        folder: For files that helm reads.
    """

    cluster: Cluster
    vault: Vault
    folder: Path

    def install(self, *settings: str) -> None:
        """Install the chart, or upgrade it; returns without waiting.

        Args:
            settings: For helm's `--set`, after the usual values.

        Raises:
            CommandFailed: helm or the API server refuses.
        """
        self.cluster.apply(self.vault.authority(), volumes.credentials())
        file = self.folder / "values.json"
        file.write_text(json.dumps(self._values()), encoding="utf-8")
        self.cluster.helm(
            *("upgrade", "--install", RELEASE, str(CHART)),
            *(f"--namespace={NAMESPACE}", f"--values={file}"),
            *(f"--set={setting}" for setting in settings),
            timeout_s=HELM_TIMEOUT_S,
        )

    def upgrade(self, *daemon_sets: str, next_image: str) -> None:
        """Give some of the programs another image and leave the rest; returns without waiting.

        Args:
            daemon_sets: `KEEPER` or `NODE_SERVER`; with the node server goes the provider.
            next_image: What they get, unless they have it and get the usual one.

        Raises:
            CommandFailed: helm or the API server refuses.
        """

        def other_tag(daemon_set: str) -> str:
            now = self.pod(daemon_set)["spec"]["containers"][0]["image"]
            name = DRIVER_IMAGE if now == next_image else next_image
            return f"{IMAGES[daemon_set]}.tag={name.rpartition(':')[2]}"

        self.cluster.helm(
            *("upgrade", RELEASE, str(CHART), f"--namespace={NAMESPACE}", "--reuse-values"),
            *(f"--set={each}" for each in map(other_tag, daemon_sets)),
            timeout_s=HELM_TIMEOUT_S,
        )

    def successor(self, daemon_set: str, before: Thing) -> Thing:
        """Return the pod that has taken the place of another one, when that has gone.

        Raises:
            NotInTime: There is none that is ready.
        """
        found: list[Thing] = []

        def is_alone() -> bool:
            found[:] = self.pods(daemon_set)
            uids = [each["metadata"]["uid"] for each in found]
            return len(uids) == 1 and uids != [before["metadata"]["uid"]] and is_ready(found[0])

        eventually(is_alone, f"another pod of {daemon_set}", timeout_s=READY_TIMEOUT_S, pause_s=0.2)
        return found[0]

    def wait_until_ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return when every pod is of the newest template and ready, and kubelet has the driver.

        Raises:
            NotInTime: It is not so; the message holds the logs of the driver's containers.
        """
        try:
            for name in DAEMON_SETS:
                self.cluster.wait_until(
                    "apps/v1/daemonsets",
                    name,
                    is_rolled_out,
                    f"{name} is ready",
                    namespace=NAMESPACE,
                    timeout_s=timeout_s,
                )
            self.cluster.wait_until(
                "storage.k8s.io/v1/csinodes",
                NODE,
                has_driver,
                "kubelet has the driver",
                namespace=None,
                timeout_s=timeout_s,
            )
        except AssertionError as error:
            error.add_note(self.logs())
            raise

    def pods(self, daemon_set: str) -> list[Thing]:
        """Return the pods of one of `DAEMON_SETS`, oldest first."""
        found = self.cluster.api.items(
            f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=f"app={daemon_set}"
        )
        return sorted(found, key=lambda each: str(each["metadata"]["creationTimestamp"]))

    def pod(self, daemon_set: str) -> Thing:
        """Return the only pod of one of `DAEMON_SETS`."""
        [found] = self.pods(daemon_set)
        return found

    def workers(self) -> list[int]:
        """Return the pids of all workers on the node, told by their uids, which only they have."""
        found = []
        for process in self.cluster.node.path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                text = (process / "status").read_text(encoding="utf-8")
                uid = int(text.partition("Uid:")[2].split()[0])
                if uid >= WORKER_UID_BASE:
                    found.append(int(process.name))
        return found

    def logs(self, lines: int = 40) -> str:
        """Return the end of each container's log."""
        return "\n".join(self._logs(lines))

    def _logs(self, lines: int) -> Iterator[str]:
        for name in DAEMON_SETS:
            for pod in self.pods(name):
                pod_name = pod["metadata"]["name"]
                yield f"--- {pod_name}:"
                yield self.cluster.log(pod_name, CONTAINERS[name], namespace=NAMESPACE, lines=lines)

    def _values(self) -> Thing:
        repository, _, tag = DRIVER_IMAGE.rpartition(":")
        image = {"repository": repository, "tag": tag, "pullPolicy": "Never"}
        return {
            "enableSecretRotation": True,
            "rotationPollInterval": f"{POLL_S}s",
            "linux": {"image": image},
            "keeper": {"image": image},
            "provider": self.vault.chart_values(),
        }


def is_rolled_out(daemon_set: Thing | None) -> bool:
    """Return whether all pods of a DaemonSet are of its newest template, and ready."""
    if daemon_set is None:
        return False
    status = daemon_set["status"]
    wanted = status["desiredNumberScheduled"]
    return bool(
        wanted
        and status.get("observedGeneration") == daemon_set["metadata"]["generation"]
        and wanted
        == status.get("updatedNumberScheduled")
        == status.get("numberReady")
        == status.get("numberAvailable")
    )


def has_driver(node: Thing | None) -> bool:
    """Return whether kubelet has told the cluster, by its CSINode, that it has the driver."""
    listed = (node or {}).get("spec", {}).get("drivers") or []
    return any(each["name"] == volumes.DRIVER for each in listed)
