"""What can go wrong in the provider, and whose fault it is.

    ProviderError                never raised itself
    ├── InvalidRequest           the author of the class (or of its Secret) must change something
    │   └── Unsupported          a correct request for something that this provider cannot do yet
    ├── NotFound                 the vault has no such object or version
    ├── PermissionDenied         the vault knows who asks, and refuses
    ├── Unauthenticated          Entra ID or the vault does not accept who asks
    ├── Throttled                the vault or Entra ID wants fewer requests; knows for how long
    ├── Unavailable              network or service trouble; the same request may succeed later
    ├── Malformed                the service answered something that is not an answer
    └── Stopped                  nobody waits for the answer any more
        ├── DeadlineExceeded     the caller's time is used up
        └── Cancelled            the caller hung up, or the provider is stopping

Messages begin with the text of the Go provider, because people search for it; a remedy follows. No
message holds a secret: those who build messages from what a service sent use `provider.redaction`.
An error raised at the fence to the vendor's libraries has no cause: their exceptions hold requests,
and requests hold credentials.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Self, final

from typing_extensions import override

if TYPE_CHECKING:
    from types import TracebackType


class ProviderError(Exception):
    """Base of all errors of this package. Never raised itself.

    Args:
        message: What happened, in one line.
        remedy: What the reader can do about it.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    @override
    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message

    def prefixed(self, prefix: str) -> Self:
        """Return the same error with a text in front of its message."""
        return self.reworded(prefix + self.message, self.remedy)

    def reworded(self, message: str, remedy: str) -> Self:
        """Return the same error with other words."""
        twin = copy.copy(self)
        twin.message = message
        twin.remedy = remedy
        twin.args = (message,)
        return twin


class InvalidRequest(ProviderError):
    """A parameter, an object or the node-publish Secret is wrong. Retrying does not help."""


class Unsupported(InvalidRequest):
    """Something the reference provider can do and this version cannot."""


class NotFound(ProviderError):
    """The vault has no such object, or no such version of it."""


class PermissionDenied(ProviderError):
    """The vault knows the identity and refuses: no role, a firewall, a disabled object."""


class Unauthenticated(ProviderError):
    """The identity was not proved: wrong secret, wrong tenant, a challenge that is not trusted."""


class Throttled(ProviderError):
    """Too many requests.

    Args:
        message: What happened.
        remedy: What the reader can do about it.
        retry_after: How long the service wants to be left alone, in seconds; None if unsaid.
    """

    def __init__(self, message: str, *, remedy: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


class Unavailable(ProviderError):
    """The service could not be reached or failed; the same request may succeed later."""


class Malformed(ProviderError):
    """The service's answer cannot be used; repeating the request would bring the same."""


class Stopped(ProviderError):
    """The work was given up because nobody waits for its result. Never raised itself."""


class DeadlineExceeded(Stopped):
    """The time that the caller gave is used up."""


class Cancelled(Stopped):
    """The caller hung up, or the provider is stopping."""


@final
class Prefixed:
    """Puts a text in front of the message of any error of ours that leaves a `with` block.

    Args:
        prefix: The text, with its separator.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, ProviderError):
            raise error.prefixed(self._prefix) from None
