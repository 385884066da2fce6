"""Which pods a volume may be published for, as far as kubelet does not say it.

A pod with a user namespace of its own (``hostUsers: false``) cannot use a volume yet: its container
would fail to start with an error that names no reason. Only the Pod says so.
"""

import logging
from typing import Protocol

from csi import logkeys
from csi.errors import ApiError, UserNamespace
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


class Admission:
    """Asks the API about a pod."""

    def __init__(self, api: PodApi) -> None:
        """Ask when `admit`."""
        self._api = api

    async def admit(self, spec: VolumeSpec) -> None:
        """Return if the volume may be published, also if the API does not tell.

        Raises:
            UserNamespace: The pod has a user namespace of its own.
        """
        if not spec.pod:
            return
        try:
            own = await self._api.has_user_namespace(spec.namespace, spec.pod)
        except ApiError as error:
            log.warning(
                "the pod cannot be read; it is taken to have no user namespace of its own",
                extra={
                    logkeys.POD: f"{spec.namespace}/{spec.pod}",
                    logkeys.VOLUME_ID: spec.volume_id,
                    logkeys.ERROR: str(error),
                },
            )
            return
        if own:
            raise UserNamespace(spec.namespace, spec.pod)
