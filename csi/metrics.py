"""What the node server counts, under the reference driver's names: nothing but numbers and names.

Where the reference's numbers mislead, ours do not: a republish with nothing to do is no publish,
``rotated`` says whether the content changed, and an error that is no provider's has no provider.

Labels are bounded. A provider is named only once its socket was found on this node, because a class
may name anything; errors are a few kinds.
"""

from collections.abc import Mapping
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder

from csi import errors
from fusefs import errors as fusefs_errors

_OS_TYPE: Final = "linux"
# The reference's, so that both may be added up: from 0.1 to 2 seconds, logarithmic.
_BUCKETS: Final = tuple(0.1 * (20**0.1) ** step for step in range(11))
# The reference's names of errors; the most specific class wins.
ERROR_TYPES: Final[Mapping[type[Exception], str]] = {
    errors.ClassNotFound: "SecretProviderClassNotFound",
    errors.ProviderError: "GRPCProviderError",
    errors.ProviderNameInvalid: "FailedToLookupProviderGRPCClient",
    errors.ProviderNotFound: "FailedToLookupProviderGRPCClient",
    # The reference has the provider's own code here, which may be any text.
    errors.ProviderRefused: "ProviderError",
    fusefs_errors.InvalidTree: "FileWriteError",
    Exception: "FailedToMount",
}
_WITHOUT_SOCKET: Final = (errors.ProviderNameInvalid, errors.ProviderNotFound)


class Metrics:
    """Counts, and tells them to whoever asks. May be called from any thread."""

    def __init__(self) -> None:
        """Start at zero."""
        # They would double the number of series.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # has no types
        self._registry = registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)
        prometheus_client.PlatformCollector(registry=registry)
        self._published = Counter(
            "node_publish",
            "Volumes published.",
            ("provider", "os_type"),
            registry=registry,
        )
        self._publish_failed = Counter(
            "node_publish_error",
            "Publishes that failed.",
            ("provider", "error_type", "os_type"),
            registry=registry,
        )
        self._unpublished = Counter(
            "node_unpublish", "Volumes unpublished.", ("os_type",), registry=registry
        )
        self._unpublish_failed = Counter(
            "node_unpublish_error", "Unpublishes that failed.", ("os_type",), registry=registry
        )
        self._refreshed = Counter(
            "rotation_reconcile",
            "Volumes whose content was asked for again; rotated: whether it had changed.",
            ("provider", "os_type", "rotated"),
            registry=registry,
        )
        self._refresh_failed = Counter(
            "rotation_reconcile_error",
            "Volumes whose content could not be had again, and stays as it was.",
            ("provider", "error_type", "os_type", "rotated"),
            registry=registry,
        )
        self._refresh_seconds = Histogram(
            "rotation_reconcile_duration_sec",
            "How long it took to ask for content again and to bring it in.",
            ("os_type",),
            buckets=_BUCKETS,
            registry=registry,
        )
        for without_provider in (self._unpublished, self._unpublish_failed, self._refresh_seconds):
            without_provider.labels(_OS_TYPE)  # there from the start, so that a rate can be taken

    def published(self, provider: str) -> None:
        """Count a volume that is shown now and was not before."""
        self._published.labels(provider, _OS_TYPE).inc()

    def publish_failed(self, error: BaseException) -> None:
        """Count a publish that ended with an error."""
        self._publish_failed.labels(provider_of(error), error_type(error), _OS_TYPE).inc()

    def unpublished(self) -> None:
        """Count an unpublish, also of a volume that was not there."""
        self._unpublished.labels(_OS_TYPE).inc()

    def unpublish_failed(self, _: BaseException) -> None:
        """Count an unpublish that ended with an error."""
        self._unpublish_failed.labels(_OS_TYPE).inc()

    def refreshed(self, provider: str, *, rotated: bool, seconds: float) -> None:
        """Count a refresh.

        Args:
            provider: Who was asked.
            rotated: Whether the pod sees something else now.
            seconds: How long it took.
        """
        self._refreshed.labels(provider, _OS_TYPE, str(rotated).lower()).inc()
        self._refresh_seconds.labels(_OS_TYPE).observe(seconds)

    def refresh_failed(self, error: BaseException, *, seconds: float) -> None:
        """Count a refresh that ended with an error."""
        labels = (provider_of(error), error_type(error), _OS_TYPE, "false")
        self._refresh_failed.labels(*labels).inc()
        self._refresh_seconds.labels(_OS_TYPE).observe(seconds)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return everything in a format that the header `Accept` allows, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


def error_type(error: BaseException) -> str:
    """Return the reference's name for what went wrong."""
    cause = error.error if isinstance(error, errors.MountFailed) else error
    return next((ERROR_TYPES[kind] for kind in type(cause).__mro__ if kind in ERROR_TYPES), "")


def provider_of(error: BaseException) -> str:
    """Return the provider that failed; empty if it was none, or there is no such provider here."""
    if isinstance(error, errors.MountFailed) and not isinstance(error.error, _WITHOUT_SOCKET):
        return error.provider
    return ""
