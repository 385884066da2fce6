"""Exceptions to gRPC codes: one table, the most specific class wins, everything else is INTERNAL.

kubelet takes some codes as "the outcome is unknown, ask again" (Canceled, DeadlineExceeded,
Unavailable, ResourceExhausted, Aborted) and all others as "nothing was done, the target directory
may go". Hence: a keeper without an answer is UNAVAILABLE, a refusal is none of these.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc

from csi import errors
from fusefs import errors as fusefs_errors

_Code = grpc.StatusCode

_TARGET_FIELD: Final = "target_path"

# Not an error of ours, so what its text holds is not known.
_UNEXPECTED: Final = "internal error ({name}); the node server's log has the details"


def _of_provider(error: errors.ProviderFailed) -> grpc.StatusCode:
    """Pass the provider's own code through."""
    return grpc.StatusCode[error.code]


def _of_cause(error: errors.MountFailed) -> grpc.StatusCode:
    return code_of(error.error)


def _of_target(error: fusefs_errors.TargetRefused) -> grpc.StatusCode:
    return _Code.INVALID_ARGUMENT if error.layout else _Code.FAILED_PRECONDITION


def _of_end(error: errors.CallOver) -> grpc.StatusCode:
    return _Code.DEADLINE_EXCEEDED if error.expired else _Code.CANCELLED


CODES: Final[Mapping[type[Exception], grpc.StatusCode | Callable[[Any], grpc.StatusCode]]] = {
    errors.InvalidRequest: _Code.INVALID_ARGUMENT,
    errors.ClassNotFound: _Code.NOT_FOUND,
    errors.ClassUnusable: _Code.FAILED_PRECONDITION,
    errors.ClassesUnavailable: _Code.UNAVAILABLE,
    errors.ApiUnavailable: _Code.UNAVAILABLE,
    errors.ApiNotFound: _Code.NOT_FOUND,
    errors.ApiConflict: _Code.ABORTED,
    errors.ApiExpired: _Code.UNAVAILABLE,
    errors.ApiRejected: _Code.FAILED_PRECONDITION,
    errors.ApiUnconfigured: _Code.FAILED_PRECONDITION,
    errors.ProviderNameInvalid: _Code.FAILED_PRECONDITION,
    errors.ProviderNotFound: _Code.FAILED_PRECONDITION,
    errors.ProviderFailed: _of_provider,
    errors.ProviderRefused: _Code.FAILED_PRECONDITION,
    errors.VersionsMissing: _Code.FAILED_PRECONDITION,
    errors.FilesMissing: _Code.FAILED_PRECONDITION,
    errors.ContentTooLarge: _Code.RESOURCE_EXHAUSTED,
    errors.MountFailed: _of_cause,
    errors.VolumeElsewhere: _Code.FAILED_PRECONDITION,
    errors.TargetTaken: _Code.FAILED_PRECONDITION,
    errors.NotSupported: _Code.UNIMPLEMENTED,
    errors.CallOver: _of_end,
    errors.NodeStopping: _Code.UNAVAILABLE,
    errors.SocketError: _Code.INTERNAL,
    fusefs_errors.InvalidTree: _Code.INVALID_ARGUMENT,
    fusefs_errors.InvalidSnapshot: _Code.INTERNAL,
    fusefs_errors.InvalidMessage: _Code.INTERNAL,
    fusefs_errors.TargetRefused: _of_target,
    fusefs_errors.KernelUnsupported: _Code.FAILED_PRECONDITION,
    fusefs_errors.OverBudget: _Code.RESOURCE_EXHAUSTED,
    fusefs_errors.Superseded: _Code.ABORTED,
    fusefs_errors.VolumeUnknown: _Code.INTERNAL,
    fusefs_errors.VolumeFailed: _Code.INTERNAL,
    fusefs_errors.KeeperUnavailable: _Code.UNAVAILABLE,
}


def code_of(error: BaseException) -> grpc.StatusCode:
    """Return the code that an exception travels as."""
    for kind in type(error).__mro__:
        found = CODES.get(kind)
        if isinstance(found, grpc.StatusCode):
            return found
        if found is not None:
            return found(error)
    return _Code.INTERNAL


def message_of(error: BaseException) -> str:
    """Return what the caller may read: our own texts, and nothing of an unexpected exception's."""
    if isinstance(error, fusefs_errors.TargetRefused):
        return f"{_TARGET_FIELD}: {error}"  # the keeper does not know what the CSI calls it
    if any(kind in CODES for kind in type(error).__mro__):
        return str(error)
    return _UNEXPECTED.format(name=type(error).__name__)
