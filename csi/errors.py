"""What can go wrong in csi, and whose fault it is.

::

    CsiError
    +-- InvalidRequest        the caller's request; decided before anything is done
    +-- ClassError            the SecretProviderClass, or where it comes from
    |   +-- ClassNotFound
    |   +-- ClassUnusable
    |   +-- ClassesUnavailable
    +-- ApiError              the Kubernetes API
    |   +-- ApiUnavailable    no answer, or none that helps: asked again later
    |   +-- ApiNotFound
    |   +-- ApiConflict
    |   +-- ApiExpired
    |   +-- ApiRejected
    +-- ApiUnconfigured       nobody says where the Kubernetes API is
    +-- ProviderError         between the class and the content
    |   +-- ProviderNameInvalid
    |   +-- ProviderNotFound
    |   +-- ProviderFailed    the provider's own status code, passed through
    |   +-- ProviderRefused   the provider's own error code, without a status
    |   +-- VersionsMissing
    |   +-- FilesMissing
    |   +-- ContentTooLarge
    +-- MountFailed           one of the above, told for a pod; has its cause's status
    +-- VolumeElsewhere       the volume is published at another target
    +-- TargetTaken           another volume is published at the target
    +-- NotSupported          a call that this driver does not offer
    +-- CallOver              the caller's deadline has passed, or he has gone
    +-- NodeStopping          this node server is on its way out
    +-- SocketError           a socket cannot be bound
    InvariantViolated         a defect of ours

Reference texts (`secrets-store-csi-driver` 1.6.0) stand first in a message, because people and
tests look for them; what follows names the field and the remedy. No message holds a credential or
file content.
"""

from collections.abc import Iterable
from typing import Final

# gRPC's names of its codes, as the reference's messages spell them, where capitalising fails.
_GO_CODE_NAMES: Final = {"OK": "OK", "CANCELLED": "Canceled"}


class CsiError(Exception):
    """Base of everything raised here on purpose; never raised itself."""


class InvalidRequest(CsiError):
    """A field of a CSI request is missing or wrong.

    Attributes:
        field: The field, as the CSI specification spells it.
    """

    def __init__(self, *, field: str, problem: str, remedy: str) -> None:
        """Build the message from what is wrong, where, and what to do."""
        super().__init__(f"{problem}: {field}: {remedy}")
        self.field = field


class ClassError(CsiError):
    """Base of what is wrong with a SecretProviderClass; never raised itself."""


class ClassNotFound(ClassError):
    """The namespace of the pod has no class of this name."""

    def __init__(self, namespace: str, name: str) -> None:
        """Build the reference's message and the remedy."""
        super().__init__(
            f"failed to get secretproviderclass {namespace}/{name}, error: "
            f'secretproviderclasses.secrets-store.csi.x-k8s.io "{name}" not found: '
            "volumeAttributes.secretProviderClass: create the class in the pod's namespace, or "
            "correct the name"
        )


class ClassUnusable(ClassError):
    """The class exists, but a field of it cannot be used.

    Attributes:
        field: Path of the field in the class.
    """

    def __init__(self, namespace: str, name: str, *, problem: str, field: str, remedy: str) -> None:
        """Build the message: the problem and the class, then the field and the remedy."""
        super().__init__(f"{problem} in {namespace}/{name}: {field}: {remedy}")
        self.field = field


class ClassesUnavailable(ClassError):
    """The source of the classes cannot be read at the moment."""


class ApiError(CsiError):
    """Base of what the Kubernetes API answers; never raised itself."""


class ApiUnavailable(ApiError):
    """The API gives no answer, or refuses for a reason that an operator can remove.

    Attributes:
        retry_after: Seconds to wait before the next attempt, as the server asked; or 0.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        """Say what is wrong and what to do."""
        super().__init__(message)
        self.retry_after = retry_after


class ApiNotFound(ApiError):
    """There is no such object, or no such kind of objects.

    Attributes:
        kind_known: False: the server does not know the kind at all.
    """

    def __init__(self, message: str, *, kind_known: bool) -> None:
        """Say what is missing."""
        super().__init__(message)
        self.kind_known = kind_known


class ApiConflict(ApiError):
    """The object exists already, or was changed by somebody else meanwhile."""


class ApiExpired(ApiError):
    """A watch asked for changes that the server has forgotten."""


class ApiRejected(ApiError):
    """The server finds something wrong with the request; repeated, it would say the same."""


class ApiUnconfigured(CsiError):
    """Nobody says where the Kubernetes API is, or what is said cannot be used."""


class ProviderError(CsiError):
    """Base of what goes wrong on the way to the content; never raised itself."""


class ProviderNameInvalid(ProviderError):
    """The name of the provider could not be the name of a socket."""

    def __init__(self, provider: str, pattern: str) -> None:
        """Build the reference's message and the remedy."""
        super().__init__(
            f'invalid provider: provider "{provider}": spec.provider: must match {pattern}'
        )


class ProviderNotFound(ProviderError):
    """No provider of this name has its socket on this node."""

    def __init__(self, provider: str, directories: Iterable[str]) -> None:
        """Build the reference's message and the remedy."""
        super().__init__(
            f'provider not found: provider "{provider}": spec.provider: there is no '
            f"{provider}.sock in {', '.join(directories)}; install the provider on this node, or "
            "correct the name"
        )


class ProviderFailed(ProviderError):
    """The provider answered with a status, or did not answer.

    Attributes:
        code: gRPC's name of the status, such as ``PERMISSION_DENIED``.
    """

    def __init__(self, code: str, description: str) -> None:
        """Build the message in the form that grpc-go gives it."""
        super().__init__(f"rpc error: code = {go_code_name(code)} desc = {description}")
        self.code = code


class ProviderRefused(ProviderError):
    """The provider answered with an error code in its reply."""

    def __init__(self, error_code: str) -> None:
        """Build the reference's message."""
        super().__init__(f"mount request failed with provider error code {error_code}")


class VersionsMissing(ProviderError):
    """The reply names no object version, which the protocol demands."""

    def __init__(self, provider: str) -> None:
        """Build the reference's message and the remedy."""
        super().__init__(
            f'missing object versions: provider "{provider}" returned no object_version; name at '
            "least one object in spec.parameters"
        )


class FilesMissing(ProviderError):
    """The reply holds versions but no file: the provider writes into the target by itself."""

    def __init__(self, provider: str) -> None:
        """Build the message with the remedy."""
        super().__init__(
            f'no files in the reply: provider "{provider}" writes files into the target by itself, '
            "which does not exist yet; let it return them (driver-writes-secrets, "
            "driverWritesSecrets) or use a provider that does"
        )


class ContentTooLarge(ProviderError):
    """The content is more than may travel or be sealed."""


class MountFailed(CsiError):
    """No content for a pod. The status is that of the cause.

    Attributes:
        provider: Who was asked for it.
        error: What went wrong.
    """

    def __init__(self, namespace: str, pod: str, provider: str, error: Exception) -> None:
        """Build the reference's message round the cause's."""
        super().__init__(
            f"failed to mount secrets store objects for pod {namespace}/{pod}, err: {error}"
        )
        self.provider = provider
        self.error = error


class VolumeElsewhere(CsiError):
    """The volume is published already, at another target."""

    def __init__(self, volume_id: str, target: str) -> None:
        """Build the message with the remedy."""
        super().__init__(
            f"volume {volume_id} is published at another target: target_path: unpublish {target} "
            "first"
        )


class TargetTaken(CsiError):
    """Another volume is published at the target."""

    def __init__(self, target: str, volume_id: str) -> None:
        """Build the message with the remedy."""
        super().__init__(
            f"target {target} is taken: target_path: unpublish volume {volume_id} there first"
        )


class NotSupported(CsiError):
    """A call that this driver does not offer; it is not among its capabilities."""


class CallOver(CsiError):
    """Nobody waits for the answer any more.

    Attributes:
        expired: True when the deadline has passed, False when the caller has gone.
    """

    def __init__(self, *, expired: bool) -> None:
        """Say which of the two it was."""
        super().__init__("the deadline has passed" if expired else "the caller has gone")
        self.expired = expired


class NodeStopping(CsiError):
    """This node server is on its way out; kubelet asks the next one again."""

    def __init__(self) -> None:
        """Build the only message."""
        super().__init__("the node server is stopping; the call will be answered by its successor")


class SocketError(CsiError):
    """A socket of ours cannot be bound."""


class InvariantViolated(Exception):
    """The state of a volume contradicts itself: a defect of this program."""


def go_code_name(code: str) -> str:
    """Return the name of a gRPC code as grpc-go prints it: ``NOT_FOUND`` is ``NotFound``."""
    return _GO_CODE_NAMES.get(code) or "".join(part.capitalize() for part in code.split("_"))
