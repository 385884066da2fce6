"""The node: its machine, and the programs that make it one of Kubernetes."""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster import configuration
from cluster.addresses import NODE
from cluster.api import Api
from cluster.cluster import Cluster
from cluster.components import COMMANDS, IMPORT_IMAGE
from cluster.machine import Machine
from cluster.process import Process
from harness.waiting import NotInTime, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cluster.material import Material

START_TIMEOUT_S: Final = 120.0  # about ten seconds when nobody else wants the cores
COMMAND_TIMEOUT_S: Final = 60.0
API_PROXY: Final = "kubectl-proxy"
_CONTAINERD_SOCKET: Final = "/run/containerd/containerd.sock"


class NodeFailed(AssertionError):
    """The node did not become ready; the message holds the end of each log."""


class Node:
    """A node with its control plane, which may be rebooted.

    Attributes:
        machine: Its namespaces.
        processes: Its programs by name; `restart` and the like are theirs.
        api: The API server.
        neighbours: Called with the machine's PID 1 after each boot, before any program: what is
            outside the node and reached through its network.
    """

    def __init__(self, folder: Path, logs: Path, material: Material) -> None:
        """Describe a node; nothing runs yet.

        Args:
            folder: Holds everything that the node writes, and is removed when it stops.
            logs: One file for each program.
            material: What the node is made of.
        """
        self.logs = logs
        self.machine = Machine(
            folder,
            layers=material.layers,
            programs=material.programs,
            log=logs / "machine.log",
        )
        self.processes: dict[str, Process] = {}
        self.neighbours: list[Callable[[int], None]] = []
        self._folder = folder
        self._material = material
        self.api = Api(folder / "api.sock")

    def start(self) -> None:
        """Boot the machine, start the programs and return when the node takes pods.

        Raises:
            NodeFailed: It does not.
            MachineFailed: The machine did not even boot.
        """
        self._start(images=(self._material.pause, self._material.reader))

    def stop(self) -> None:
        """End everything and remove what was written, but for the logs; twice is no mistake.

        Raises:
            MachineFailed: Something is left.
        """
        self._halt(keep=False)

    def reboot(self) -> None:
        """Cut the power and start again: processes, mounts and networks are new, disks the same.

        Raises:
            NodeFailed: The node did not become ready again.
        """
        self._halt(keep=True)
        self._start(images=())

    def command(self, program: str, *arguments: str) -> list[str]:
        """Return the arguments that run kubectl or helm (with `user_environment`)."""
        return self.machine.beside(str(self._material.programs / program), *arguments)

    @property
    def user_environment(self) -> dict[str, str]:
        """The environment of kubectl and helm: the administrator's, with a home of its own."""
        return {
            **self.machine.environment,
            "HOME": str(self._folder / "home"),
            "KUBECONFIG": str(self._folder / "etc" / "admin.kubeconfig"),
        }

    def run(self, *command: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a program on the node, in its root and namespaces, and return its output.

        Raises:
            subprocess.CalledProcessError: It ended with an error.
            subprocess.TimeoutExpired: It did not end in time; it was killed.
        """
        return subprocess.run(
            self.machine.inside(*command),
            env=dict(self.machine.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
        ).stdout

    def path(self, inside: str) -> Path:
        """Return a path by which this process reaches a file of the node, or of its tmpfs.

        An absolute symbolic link on the way leads out of the node, to this process's own root.
        """
        return Path(f"/proc/{self.machine.init}/root{inside}")

    def mountinfo(self) -> str:
        """Return the mounts of the node's own namespace, where kubelet is."""
        return Path(f"/proc/{self.machine.init}/mountinfo").read_text(encoding="utf-8")

    def import_image(self, archive: Path) -> None:
        """Give the node an image that `images.build` wrote.

        Raises:
            subprocess.CalledProcessError: The container runtime did not take it.
        """
        with archive.open("rb") as file:
            subprocess.run(
                self.machine.inside(*IMPORT_IMAGE),
                env=dict(self.machine.environment),
                stdin=file,
                capture_output=True,
                check=True,
                timeout=COMMAND_TIMEOUT_S,
            )

    def log_tails(self) -> str:
        """Return the end of each program's log."""
        return "\n".join(process.log_tail for process in self.processes.values())

    def broken(self) -> list[str]:
        """Return which programs do not run and should."""
        return [
            name
            for name in (*COMMANDS, API_PROXY)
            if name not in self.processes or not self.processes[name].running
        ]

    def _start(self, *, images: Sequence[Path]) -> None:
        self.machine.boot()
        for tell in self.neighbours:
            tell(self.machine.init)
        for name in ("etcd", "containerd", "kube-apiserver"):
            self._run(name)
        self._serve_api()
        self._wait(self._runtime_listens, "the container runtime listens")
        for archive in images:
            self.import_image(archive)
        self._run("kubelet")  # without a runtime it would end
        self._wait(self.api.is_ready, "the API server is ready")
        for name in ("kube-controller-manager", "kube-scheduler"):
            self._run(name)
        self._wait(self._takes_pods, "the node is ready")

    def _run(self, name: str) -> None:
        self.processes[name] = Process(
            name,
            self.machine.inside(*COMMANDS[name]),
            log=self.logs / f"{name}.log",
            environment=self.machine.environment,
        )

    def _serve_api(self) -> None:
        """Let the API be reached from outside the node's network, through a socket."""
        socket = self._folder / "api.sock"
        socket.unlink(missing_ok=True)
        self.processes[API_PROXY] = Process(
            API_PROXY,
            self.command("kubectl", "proxy", f"--unix-socket={socket}"),
            log=self.logs / f"{API_PROXY}.log",
            environment=self.user_environment,
        )

    def _halt(self, *, keep: bool) -> None:
        try:
            self.machine.halt(keep=keep)
        finally:
            for process in self.processes.values():
                process.end(signal.SIGKILL)
            self.processes.clear()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            ended = [process for process in self.processes.values() if not process.running]
            if ended:
                message = f"{', '.join(each.name for each in ended)} ended before: {what}"
                raise NodeFailed("\n".join([message, *(each.log_tail for each in ended)]))
            return condition()

        try:
            eventually(holds, what, timeout_s=START_TIMEOUT_S, pause_s=0.1)
        except NotInTime as error:
            message = f"{error}\n{self.log_tails()}"
            raise NodeFailed(message) from None

    def _runtime_listens(self) -> bool:
        return self.path(_CONTAINERD_SOCKET).exists()

    def _takes_pods(self) -> bool:
        """Return whether the node is ready and pods may be made: each needs a service account.

        After a reboot, what the node was before is still told for a while, so the boot counts too.
        """
        account = self.api.find("/api/v1/namespaces/default/serviceaccounts/default")
        node = self.api.find(f"/api/v1/nodes/{NODE}")
        if account is None or node is None or node["spec"].get("taints"):
            return False
        boot = self.path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        if node["status"]["nodeInfo"]["bootID"] != boot:
            return False
        conditions = {each["type"]: each["status"] for each in node["status"]["conditions"]}
        return conditions.get("Ready") == "True"


@contextmanager
def node(folder: Path, *, logs: Path, material: Material) -> Iterator[Cluster]:
    """Run a node in a folder, which must be empty or not be there, and is gone afterwards.

    Args:
        folder: Its path must be short, for the socket in it.
        logs: An existing folder for the logs, which stay.
        material: What the node is made of.
    """
    (folder / "etc").mkdir(parents=True)
    configuration.write(folder / "etc")
    running = Node(folder, logs, material)
    try:
        running.start()
        yield Cluster(running)
    finally:
        running.stop()
