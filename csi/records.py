"""The records that travel between the modules of csi: frozen, without protobuf, safe to print.

A `VolumeSpec` is what kubelet asked for, without credentials, so that it may be logged and handed
to the keeper; `Credentials` are kept apart and print as their size only.
"""

from collections.abc import Mapping
from typing import Final, NewType, NoReturn

import attrs
from typing_extensions import override

VolumeId = NewType("VolumeId", str)
TargetPath = NewType("TargetPath", str)

CLASS_KEY: Final = "secretProviderClass"
POD_NAME_KEY: Final = "csi.storage.k8s.io/pod.name"
POD_NAMESPACE_KEY: Final = "csi.storage.k8s.io/pod.namespace"
POD_UID_KEY: Final = "csi.storage.k8s.io/pod.uid"
SERVICE_ACCOUNT_KEY: Final = "csi.storage.k8s.io/serviceAccount.name"
TOKENS_KEY: Final = "csi.storage.k8s.io/serviceAccount.tokens"


@attrs.frozen(kw_only=True)
class VolumeSpec:
    """What a volume shall show, to whom and where.

    Attributes:
        attributes: The volume context, without tokens.
        group: The group of files and directories (the pod's fsGroup), if one was asked for.
    """

    volume_id: VolumeId
    target: TargetPath
    attributes: Mapping[str, str]
    group: int | None = None

    @property
    def namespace(self) -> str:
        """The namespace of the pod, in which the class is looked up."""
        return self.attributes.get(POD_NAMESPACE_KEY, "")

    @property
    def pod(self) -> str:
        """The name of the pod."""
        return self.attributes.get(POD_NAME_KEY, "")

    @property
    def pod_uid(self) -> str:
        """The UID of the pod."""
        return self.attributes.get(POD_UID_KEY, "")

    @property
    def class_name(self) -> str:
        """The name of the SecretProviderClass."""
        return self.attributes.get(CLASS_KEY, "")

    @property
    def service_account(self) -> str:
        """The service account of the pod."""
        return self.attributes.get(SERVICE_ACCOUNT_KEY, "")


def _count(values: Mapping[str, str]) -> str:
    return f"<{len(values)} secret values>"


class _NeverPickled:
    """Base of records that hold secrets: a copy in a pickle would print and outlive them."""

    __slots__ = ()

    @override
    def __reduce_ex__(self, protocol: object) -> NoReturn:
        message = f"{type(self).__name__} holds secrets, which are not pickled or copied"
        raise TypeError(message)


@attrs.frozen(kw_only=True)
class Credentials(_NeverPickled):
    """What a pod brings to prove who it is; printed as sizes only.

    Attributes:
        secrets: The request's secrets (the pod's nodePublishSecretRef).
        tokens: JSON with the service account's tokens, or empty.
    """

    secrets: Mapping[str, str] = attrs.field(factory=dict, repr=_count)
    tokens: str = attrs.field(default="", repr=lambda tokens: f"<secret {len(tokens)} characters>")


@attrs.frozen(kw_only=True)
class PublishRequest:
    """A publish that was found valid. `selinux_context` is empty for the node's default."""

    spec: VolumeSpec
    credentials: Credentials
    selinux_context: str = ""


@attrs.frozen(kw_only=True)
class UnpublishRequest:
    """An unpublish that was found valid."""

    volume_id: VolumeId
    target: TargetPath


@attrs.frozen
class ObjectVersion:
    """An object of the vault, and the version that a volume shows."""

    id: str
    version: str


@attrs.frozen(kw_only=True)
class ReturnedFile(_NeverPickled):
    """A file of a provider's reply."""

    path: str
    mode: int
    content: bytes = attrs.field(repr=lambda content: f"<secret {len(content)} bytes>")


@attrs.frozen(kw_only=True)
class MountCall(_NeverPickled):
    """What a provider is asked; the strings are those of the wire.

    Attributes:
        attributes: JSON object with parameters, volume context and tokens.
        secrets: JSON object, or ``null``.
        current: The versions that the volume shows now.
    """

    attributes: str = attrs.field(repr=False)
    secrets: str = attrs.field(repr=False)
    target: TargetPath
    permission: str
    current: tuple[ObjectVersion, ...] = ()


@attrs.frozen(kw_only=True)
class MountReply:
    """What a provider answered: at least one file and one version."""

    files: tuple[ReturnedFile, ...]
    versions: tuple[ObjectVersion, ...]
