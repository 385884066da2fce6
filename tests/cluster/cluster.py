"""What a scenario does with a cluster: kubectl, helm, and waiting until something is so."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Final

from cluster.api import ApiError
from harness.waiting import NotInTime, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.api import Api, Thing
    from cluster.node import Node

COMMAND_TIMEOUT_S: Final = 60.0
POD_TIMEOUT_S: Final = 60.0
RETRY_S: Final = 0.2


class CommandFailed(AssertionError):
    """kubectl or helm ended with an error; the message holds what it wrote."""


class Cluster:
    """The cluster as its administrator sees it.

    Attributes:
        node: The node, for what happens below Kubernetes.
        api: The API server's own interface.
    """

    def __init__(self, node: Node) -> None:
        """Use a running node."""
        self.node = node

    @property
    def api(self) -> Api:
        """The API server's own interface."""
        return self.node.api

    def kubectl(self, *arguments: str, text: str = "", timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run kubectl and return what it printed.

        Args:
            arguments: Its arguments.
            text: Its standard input.
            timeout_s: How long it may take.

        Raises:
            CommandFailed: It ended with an error.
        """
        return self._run("kubectl", arguments, text, timeout_s)

    def helm(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run helm and return what it printed.

        Raises:
            CommandFailed: It ended with an error.
        """
        return self._run("helm", arguments, "", timeout_s)

    def apply(self, *things: Thing) -> None:
        """Create or change objects.

        Raises:
            CommandFailed: The API server refuses one.
        """
        listed = {"apiVersion": "v1", "kind": "List", "items": list(things)}
        self.kubectl("apply", "--filename=-", text=json.dumps(listed))

    def delete(self, resource: str, name: str, *, namespace: str = "default") -> None:
        """Delete an object and return when it is gone; one that is not there is fine.

        Raises:
            CommandFailed: It did not go.
        """
        self.kubectl("delete", resource, name, f"--namespace={namespace}", "--ignore-not-found")

    def execute(
        self, pod: str, *command: str, namespace: str = "default", container: str | None = None
    ) -> str:
        """Run a program in a container and return its output.

        Raises:
            CommandFailed: It ended with an error.
        """
        which = [f"--container={container}"] if container else []
        return self.kubectl("exec", f"--namespace={namespace}", pod, *which, "--", *command)

    def wait_until(
        self,
        resource: str,
        name: str,
        condition: Callable[[Thing | None], bool],
        what: str,
        *,
        namespace: str | None = "default",
        timeout_s: float = POD_TIMEOUT_S,
    ) -> Thing | None:
        """Return an object once it is as wanted; it is watched, not polled.

        Args:
            resource: `pods`, or with its group and version `apps/v1/daemonsets`.
            name: Of the object.
            condition: Gets the object, or None while there is none.
            what: Is awaited, for the failure.
            namespace: None for objects without one.
            timeout_s: How long to wait.

        Raises:
            NotInTime: It was not so in time; the message holds the object's status and its events.
            ApiError: There are no such objects, or they must not be seen.
        """
        path = path_of(resource, namespace)
        selector = f"metadata.name={name}"
        deadline = time.monotonic() + timeout_s
        never = threading.Event()
        found: Thing | None = None
        while (left := deadline - time.monotonic()) > 0:
            try:
                listed = self.api.get(path, fieldSelector=selector)
                found = next(iter(listed["items"]), None)
                if condition(found):
                    return found
                version = listed["metadata"]["resourceVersion"]
                changes = self.api.watch(
                    path, timeout_s=left, fieldSelector=selector, resourceVersion=version
                )
                for kind, thing in changes:
                    if kind == "ERROR":
                        break  # what was listed is too old to go on from
                    found = None if kind == "DELETED" else thing
                    if condition(found):
                        return found
                    if time.monotonic() > deadline:
                        break
            except (OSError, http.client.HTTPException):
                never.wait(RETRY_S)  # the API server may be restarted meanwhile
            except ApiError as error:
                if error.status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                never.wait(RETRY_S)
        status = json.dumps((found or {}).get("status"), indent=1)
        events = "\n".join(self.events(name, namespace=namespace))
        message = f"not within {timeout_s:g} s: {what}\n{resource} {name}: {status}\n{events}"
        raise NotInTime(message)

    def wait_for_ready(
        self, pod: str, *, namespace: str = "default", timeout_s: float = POD_TIMEOUT_S
    ) -> Thing:
        """Return a pod once it is ready.

        Raises:
            NotInTime: It is not.
        """
        found = self.wait_until(
            "pods", pod, is_ready, "the pod is ready", namespace=namespace, timeout_s=timeout_s
        )
        return found or {}

    def events(self, name: str, *, namespace: str | None = "default") -> list[str]:
        """Return what Kubernetes told about an object, oldest first, as `reason: message`."""
        try:
            items = self.api.items(
                path_of("events", namespace or "default"),
                fieldSelector=f"involvedObject.name={name}",
            )
        except (OSError, ApiError) as error:
            return [f"(events are not to be had: {error})"]
        return [f"{each['reason']}: {each['message']}" for each in items]

    def wait_for_event(
        self, name: str, text: str, *, namespace: str = "default", timeout_s: float = POD_TIMEOUT_S
    ) -> str:
        """Return the first event of an object that contains a text, as `reason: message`.

        Raises:
            NotInTime: There is none; the message holds those that there are.
        """
        found: list[str] = []

        def told() -> bool:
            found[:] = self.events(name, namespace=namespace)
            return any(text in each for each in found)

        try:
            eventually(told, f"an event of {name}: {text}", timeout_s=timeout_s, pause_s=RETRY_S)
        except NotInTime as error:
            error.add_note("\n".join(found))
            raise
        return next(each for each in found if text in each)

    def log(
        self, pod: str, container: str, *, namespace: str = "default", lines: int | None = None
    ) -> str:
        """Return what a container has written, or the last lines of it.

        Raises:
            ApiError: There is no such container, or it has not started.
        """
        path = f"{path_of('pods', namespace)}/{pod}/log"
        end = {} if lines is None else {"tailLines": str(lines)}
        return self.api.text(path, container=container, **end)

    def _run(self, program: str, arguments: Sequence[str], text: str, timeout_s: float) -> str:
        done = subprocess.run(
            self.node.command(program, *arguments),
            env=self.node.user_environment,
            input=text,
            capture_output=True,
            check=False,
            text=True,
            timeout=timeout_s,
        )
        if done.returncode:
            message = f"{program} {' '.join(arguments)}: exit status {done.returncode}\n"
            raise CommandFailed(message + done.stderr + done.stdout)
        return done.stdout


def path_of(resource: str, namespace: str | None = "default") -> str:
    """Return where the API has objects of a kind: `pods` is of the core group."""
    group, _, plural = resource.rpartition("/")
    start = f"/apis/{group}" if group else "/api/v1"
    middle = f"/namespaces/{namespace}" if namespace else ""
    return f"{start}{middle}/{plural}"


def is_ready(pod: Thing | None) -> bool:
    """Return whether a pod exists and is ready."""
    conditions = (pod or {}).get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
