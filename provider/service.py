"""The gRPC services: requests in, records across, answers or one status out. No decisions.

`CODES` is the only place where an error of ours becomes a gRPC code. Drivers hand the code on to
kubelet, to which Unavailable, ResourceExhausted, DeadlineExceeded, Cancelled and Aborted are not
final.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

import grpc
from typing_extensions import override

from provider import logkeys
from provider._pb import v1alpha1_pb2 as pb
from provider._pb import v1alpha1_pb2_grpc as pb_grpc
from provider.budget import Budget
from provider.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    Malformed,
    NotFound,
    PermissionDenied,
    Prefixed,
    ProviderError,
    Throttled,
    Unauthenticated,
    Unavailable,
)
from provider.logs import where
from provider.mounts import MountRequest
from provider.wire import parse_attributes, parse_permission, parse_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    from provider.model import MountedFile
    from provider.mounts import Mounter

log = logging.getLogger(__name__)

PROTOCOL: Final = "v1alpha1"
RUNTIME_NAME: Final = "secrets-store-csi-driver-provider-azure"  # what existing dashboards know
RETRY_AFTER: Final = "retry-after"  # trailing metadata, seconds, with ResourceExhausted

# Most specific first: the first class that fits decides.
CODES: Final = (
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (Throttled, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
    (Cancelled, grpc.StatusCode.CANCELLED),
    (Malformed, grpc.StatusCode.INTERNAL),
)

DEFAULT_BUDGET_S: Final = 110.0  # kubelet gives 120 s; this is for callers that set no deadline
_LONGEST_BUDGET_S: Final = 3600.0
# Our answer must leave before the caller's deadline ends the call, or nobody reads its reason.
_MARGIN_SHARE: Final = 0.15
_MARGIN_S: Final = 0.5
MOUNTS_AT_ONCE: Final = 16  # each reads with four threads
_LOOK_S: Final = 1.0  # a semaphore cannot be woken by a caller who hangs up
# A status travels in a header block of 8 KiB, where one character may take twelve bytes.
_LONGEST_STATUS: Final = 1_500  # bytes


def code_of(error: ProviderError) -> grpc.StatusCode:
    """Return the gRPC code of an error."""
    return next((code for kind, code in CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


class ProviderService(pb_grpc.CSIDriverProviderServicer):
    """The provider protocol.

    Args:
        mounter: Answers mount requests.
        version: Of this program.
        mounts_at_once: How many requests work at a time; the others wait within their deadlines.
    """

    def __init__(
        self, mounter: Mounter, *, version: str, mounts_at_once: int = MOUNTS_AT_ONCE
    ) -> None:
        self._mounter = mounter
        self._version = version
        self._slots = threading.BoundedSemaphore(mounts_at_once)

    @override
    def Version(
        self, request: pb.VersionRequest, context: grpc.ServicerContext
    ) -> pb.VersionResponse:
        """Say which protocol is spoken, and who speaks."""
        return pb.VersionResponse(
            version=PROTOCOL, runtime_name=RUNTIME_NAME, runtime_version=self._version
        )

    @override
    def Mount(self, request: pb.MountRequest, context: grpc.ServicerContext) -> pb.MountResponse:
        """Return the files of a volume."""
        began = time.monotonic()
        budget = Budget(_seconds_for(context))
        if not context.add_callback(budget.cancel):
            budget.cancel()
        fields: dict[str, object] = {}
        outcome = self._outcome(request, budget, fields)
        fields[logkeys.SECONDS] = round(time.monotonic() - began, 3)
        if isinstance(outcome, ProviderError):
            _refuse(context, outcome, fields)
        log.info("mount answered", extra=fields | {logkeys.FILES: len(outcome)})
        return _response(outcome)

    def _outcome(
        self, request: pb.MountRequest, budget: Budget, fields: dict[str, object]
    ) -> tuple[MountedFile, ...] | ProviderError:
        """Return what a request leads to; nothing is raised."""
        try:
            return self._mount(request, budget, fields)
        except ProviderError as error:
            return error
        except Exception as error:  # noqa: BLE001  a fault of ours; its text may quote anything
            log.error("a mount failed unexpectedly: %s", where(error), extra=fields)  # noqa: TRY400
            return Malformed("internal error", remedy="see the provider's log")

    def _mount(
        self, request: pb.MountRequest, budget: Budget, fields: dict[str, object]
    ) -> tuple[MountedFile, ...]:
        """Decode and answer a request, when there is room for it."""
        decoded = MountRequest(
            attributes=parse_attributes(request.attributes),
            secrets=parse_secrets(request.secrets),
            permission=parse_permission(request.permission),
        )
        fields |= _whose(decoded)
        with Prefixed("failed to mount objects, error: "):
            self._wait_for_slot(budget)
            try:
                return self._mounter.mount(decoded, budget)
            finally:
                self._slots.release()

    def _wait_for_slot(self, budget: Budget) -> None:
        """Wait until fewer mounts than allowed are at work, within the caller's time."""
        while not self._slots.acquire(timeout=min(_LOOK_S, budget.remaining())):
            budget.check()


def _seconds_for(context: grpc.ServicerContext) -> float:
    """Return how long a call may take, a little less than its caller waits."""
    remaining = context.time_remaining()
    if remaining is None or remaining > _LONGEST_BUDGET_S:  # gRPC's "none" is centuries away
        return DEFAULT_BUDGET_S
    return max(0.0, remaining - min(_MARGIN_S, _MARGIN_SHARE * remaining))


def _response(files: Iterable[MountedFile]) -> pb.MountResponse:
    """Build the answer: the files, and a version for each of them."""
    response = pb.MountResponse()
    for file in files:
        response.files.add(path=file.path, mode=file.mode, contents=file.content.reveal())
        response.object_version.add(id=file.object_id, version=file.version)
    return response


def _refuse(
    context: grpc.ServicerContext, failure: ProviderError, fields: dict[str, object]
) -> NoReturn:
    """End the call with a status."""
    code = code_of(failure)
    log.warning("mount refused: %s", failure, extra=fields | {logkeys.CODE: code.name})
    if isinstance(failure, Throttled) and failure.retry_after is not None:
        context.set_trailing_metadata(((RETRY_AFTER, f"{failure.retry_after:.0f}"),))
    details = str(failure).encode()
    if len(details) > _LONGEST_STATUS:
        details = details[:_LONGEST_STATUS] + "…".encode()
    context.abort(code, details.decode(errors="ignore"))


def _whose(request: MountRequest) -> dict[str, object]:
    """Return the log fields that name a request."""
    names = {
        logkeys.POD: "csi.storage.k8s.io/pod.name",
        logkeys.NAMESPACE: "csi.storage.k8s.io/pod.namespace",
        logkeys.VAULT: "keyvaultName",
    }
    return {field: request.attributes.get(key, "")[:253] for field, key in names.items()}
