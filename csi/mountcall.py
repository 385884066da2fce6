"""What a provider is asked, byte for byte as the reference driver asks it.

Providers parse these strings, and some compare them; so the JSON is Go's: keys sorted, no spaces,
and the five characters that Go escapes are escaped.
"""

import json
from collections.abc import Mapping
from typing import Final

from csi.options import PREFIX
from csi.records import TOKENS_KEY, Credentials, MountCall, ObjectVersion, VolumeSpec

# os.FileMode(0644) as encoding/json prints it: decimal.
PERMISSION: Final = "420"
_GO_ESCAPES: Final = str.maketrans(
    {char: f"\\u{ord(char):04x}" for char in ("<", ">", "&", "\u2028", "\u2029")}
)


def go_json(value: Mapping[str, str] | None) -> str:
    """Return `value` as Go's encoding/json writes a map, or a nil map, of strings."""
    # The escaped characters never occur outside a string, so they may be replaced in the whole.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.translate(_GO_ESCAPES)


def mount_call(
    parameters: Mapping[str, str],
    spec: VolumeSpec,
    credentials: Credentials,
    current: tuple[ObjectVersion, ...],
) -> MountCall:
    """Return the call for a volume: parameters of its class overlaid with its attributes.

    Args:
        parameters: The class's, without ours.
        spec: The volume. Its attributes win over `parameters`, as in the reference.
        credentials: What the pod brought.
        current: What the volume shows now; the reference always sends none.
    """
    attributes = dict(parameters)
    attributes.update(
        (key, value) for key, value in spec.attributes.items() if not key.startswith(PREFIX)
    )
    if credentials.tokens:
        attributes[TOKENS_KEY] = credentials.tokens
    return MountCall(
        attributes=go_json(attributes),
        secrets=go_json(credentials.secrets or None),
        target=spec.target,
        permission=PERMISSION,
        current=current,
    )
