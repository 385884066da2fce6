"""What can go wrong on the command line.

::

    CliError
    +-- DirectoryRefused   the folder cannot be used: busy, or foreign files in it
    +-- SetupFailed        a program did not come up, or the volume was not published
    +-- NotRunning         nobody answers in the folder
    +-- ControlFailed      the playground could not do what it was asked for
    +-- UnknownSecret      a name that the playground does not have
    +-- VaultRefused       the vault does not take the value
    +-- CallFailed         the driver's answer to a call that kubelet makes
    +-- FoldersLeft        kubelet cannot remove its folders after an unpublish
    +-- StepFailed         the demo saw something else than it promises

No message holds a secret's value.
"""


class CliError(Exception):
    """Base of everything raised here on purpose; never raised itself."""


class DirectoryRefused(CliError):
    """The folder that was named cannot be used."""


class SetupFailed(CliError):
    """A part did not come up; the logs say why."""


class NotRunning(CliError):
    """There is no playground in the folder."""


class VaultRefused(CliError):
    """The vault does not take the value."""


class FoldersLeft(CliError):
    """Kubelet cannot remove its folders: something is left at the target."""


class StepFailed(CliError):
    """Something that the demo promises did not happen."""


class ControlFailed(CliError):
    """The playground could not do what it was asked for."""


class UnknownSecret(CliError):
    """The playground has no secret of this name.

    Attributes:
        name: What was asked for.
        known: What there is.
    """

    def __init__(self, name: str, known: list[str]) -> None:
        """Name the secrets that there are."""
        super().__init__(f"there is no secret {name!r}; there are {', '.join(sorted(known))}")
        self.name = name
        self.known = sorted(known)


class CallFailed(CliError):
    """A call over a gRPC socket failed.

    Attributes:
        code: The name of the status, as ``UNAVAILABLE``.
    """

    def __init__(self, method: str, code: str, details: str) -> None:
        """Keep what the caller decides by."""
        super().__init__(f"{method} answers {code}: {details}")
        self.code = code
