"""Errors of the emulator.

EmulatorError
  ConfigInvalid        the configuration file is wrong: the caller's fault, names the field
  CommandRefused       an admin command cannot be done (unknown vault, unknown principal, …)
  EmulatorUnavailable  nobody answers at the admin URL, or what answers is not this emulator

`ServiceError` stands apart: it is not a failure of the emulator but an answer that the service
would give, on its way to the wire.
"""

from __future__ import annotations


class EmulatorError(Exception):
    """Base class; never raised itself."""


class ConfigInvalid(EmulatorError):
    """The configuration cannot be used.

    Args:
        field: Where in the file, as `vaults.demo.access`.
        problem: What is wrong, and what would be right.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"emulator configuration, {field}: {problem}")
        self.field = field


class CommandRefused(EmulatorError):
    """An admin command cannot be done; nothing was changed."""


class EmulatorUnavailable(EmulatorError):
    """The emulator does not answer, or not as this emulator would."""


class ServiceError(Exception):
    """An answer of the service that is not a success.

    Args:
        status: HTTP status.
        code: `error.code` of the service's JSON.
        message: `error.message`; never a secret value.
        inner: `error.innererror.code`, where the service sends one.
        headers: Extra headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        inner: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.inner = inner
        self.headers = headers
