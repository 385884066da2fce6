"""What the node server has of a cluster: classes, user namespaces of pods, pod statuses."""

from typing import TYPE_CHECKING, Protocol

import trio

from csi.classwatch import ClassApi, WatchedClasses
from csi.statuswriter import StatusApi, StatusWriter
from csi.usernamespaces import PodApi, UserNamespaces
from csi.volumes import Registry

if TYPE_CHECKING:
    from collections.abc import Callable


class ClusterApi(ClassApi, PodApi, StatusApi, Protocol):
    """The calls to the Kubernetes API: `csi.kube.KubeApi`, or a fake."""


class Cluster:
    """The parts above the Kubernetes API, for the volumes of one registry.

    Attributes:
        registry: The volumes.
        classes: Where their classes come from.
        user_namespaces: Asked before one is published.
        statuses: Told when one has changed.
        on_class_changed: Told namespace and name of a class whose content has changed.
    """

    def __init__(self, api: ClusterApi, *, node_id: str, watching: bool) -> None:
        """Call nobody yet.

        Args:
            api: The calls.
            node_id: The name of this node.
            watching: False: classes matter only when a volume is published.
        """
        self.registry = Registry()
        self.on_class_changed: Callable[[str, str], None] = lambda _namespace, _name: None
        self.classes = WatchedClasses(
            api,
            in_use=lambda: {volume.spec.namespace for volume in self.registry},
            on_changed=self._class_changed,
        )
        self.user_namespaces = UserNamespaces(api)
        self.statuses = StatusWriter(
            api,
            node_id=node_id,
            shown=lambda: [(each.spec, each.versions) for each in self.registry if each.shown],
        )
        self._watching = watching

    async def run(self) -> None:
        """Watch classes and write statuses until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.statuses.run)
            if self._watching:
                nursery.start_soon(self.classes.run)

    def _class_changed(self, namespace: str, name: str) -> None:
        self.on_class_changed(namespace, name)
