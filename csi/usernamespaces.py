"""Which pods have a user namespace of their own (``hostUsers: false``).

The ids of their volumes are mapped, which the file system must allow when mounted; a container
would fail to start otherwise, with an error that names no reason. Only the Pod says so.
"""

import logging
from typing import Protocol

from csi import logkeys
from csi.errors import ApiError
from csi.records import VolumeSpec

log = logging.getLogger(__name__)


class PodApi(Protocol):
    """What of the Kubernetes API is needed here."""

    async def has_user_namespace(self, namespace: str, pod: str) -> bool:
        """Return whether a pod has a user namespace of its own.

        Raises:
            ApiError: There is no such pod, or no answer.
        """
        ...


class UserNamespaces:
    """Asks the API about pods."""

    def __init__(self, api: PodApi) -> None:
        """Ask when `has_one`."""
        self._api = api

    async def has_one(self, spec: VolumeSpec) -> bool:
        """Return whether the pod has a user namespace of its own; not, if the API does not tell."""
        if not spec.pod:
            return False
        try:
            return await self._api.has_user_namespace(spec.namespace, spec.pod)
        except ApiError as error:
            log.warning(
                "the pod cannot be read; it is taken to have no user namespace of its own",
                extra={
                    logkeys.POD: f"{spec.namespace}/{spec.pod}",
                    logkeys.VOLUME_ID: spec.volume_id,
                    logkeys.ERROR: str(error),
                },
            )
            return False
