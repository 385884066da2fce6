"""Durations as Go writes them (``1h30m``, ``2m``, ``500ms``): flags and classes use that form."""

import re
from typing import Final

_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+")


def parse_duration(text: str) -> float:
    """Return the seconds that `text` means.

    Raises:
        ValueError: `text` is not a positive duration with a unit.
    """
    if not _WHOLE.fullmatch(text):
        message = f"{text!r} is not a duration; write a number and a unit, such as 2m, 90s or 1h30m"
        raise ValueError(message)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if seconds <= 0:
        message = f"{text!r} is not a duration above zero"
        raise ValueError(message)
    return seconds
