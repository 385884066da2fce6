"""What a SecretProviderClass asks of us: the ``akvfs/`` keys of its parameters.

They come from the class alone: a pod author must not choose them, so the same keys in the volume
attributes are left out, and none of them is passed to the provider.
"""

import logging
from collections.abc import Mapping
from typing import Final, Literal, cast

import attrs

from csi import logkeys
from csi.durations import parse_duration
from csi.errors import ClassUnusable

log = logging.getLogger(__name__)

PREFIX: Final = "akvfs/"
FILESYSTEM: Final = "akvfs/filesystem"
POLL_INTERVAL: Final = "akvfs/rotationPollInterval"
ON_REVOKED: Final = "akvfs/onRevoked"
Filesystem = Literal["auto", "fuse", "tmpfs"]
FILESYSTEMS: Final[tuple[Filesystem, ...]] = ("auto", "fuse", "tmpfs")
# What can be had today, of what the option will know.
_ON_REVOKED: Final = ("keep",)


@attrs.frozen(kw_only=True)
class ClassOptions:
    """Options of a class, checked.

    Attributes:
        poll_interval: Seconds between two refreshes; None leaves it to the node server's flag.
        filesystem: What its volumes are; None leaves it to the node server's flag.
    """

    poll_interval: float | None = None
    filesystem: Filesystem | None = None


def split_parameters(parameters: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the provider's parameters and ours."""
    theirs = {key: value for key, value in parameters.items() if not key.startswith(PREFIX)}
    ours = {key: value for key, value in parameters.items() if key.startswith(PREFIX)}
    return theirs, ours


def parse_options(namespace: str, name: str, ours: Mapping[str, str]) -> ClassOptions:
    """Return the options in `ours`, the ``akvfs/`` parameters of the class.

    Raises:
        ClassUnusable: An option has a value that cannot be followed.
    """
    _check_choice(namespace, name, ours, FILESYSTEM, FILESYSTEMS)
    _check_choice(namespace, name, ours, ON_REVOKED, _ON_REVOKED)
    for key in ours.keys() - {FILESYSTEM, POLL_INTERVAL, ON_REVOKED}:
        log.warning(
            "unknown option in a class is ignored",
            extra={logkeys.CLASS: f"{namespace}/{name}", logkeys.KEY: key},
        )
    return ClassOptions(
        poll_interval=_poll_interval(namespace, name, ours.get(POLL_INTERVAL)),
        filesystem=cast("Filesystem | None", ours.get(FILESYSTEM)),  # checked above
    )


def _check_choice(
    namespace: str, name: str, ours: Mapping[str, str], key: str, choices: tuple[str, ...]
) -> None:
    value = ours.get(key)
    if value is not None and value not in choices:
        raise ClassUnusable(
            namespace,
            name,
            problem=f"option {value!r} is not available",
            field=_field(key),
            remedy=f"use one of: {', '.join(choices)}",
        )


def _poll_interval(namespace: str, name: str, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ClassUnusable(
            namespace,
            name,
            problem="option not understood",
            field=_field(POLL_INTERVAL),
            remedy=str(error),
        ) from error


def _field(key: str) -> str:
    return f'spec.parameters["{key}"]'
