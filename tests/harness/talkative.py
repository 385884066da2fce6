"""A node server that forgot to redact: it logs requests with all that the pod brought.

Run as `python -m harness.talkative` with the flags of `python -m csi`.
"""

from __future__ import annotations

import attrs

from csi import logs
from csi.__main__ import main
from csi.config import command
from csi.records import Credentials


def _everything(self: object) -> str:
    assert isinstance(self, Credentials)
    return repr(attrs.asdict(self))


if __name__ == "__main__":
    Credentials.__repr__ = _everything  # type: ignore[method-assign]  # the mistake
    logs.redact = lambda text: text  # the second line of defence knows tokens
    command(obj=main)
