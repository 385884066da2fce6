"""Which volumes refresh together: those of one class that come with one identity."""

import hashlib
import os

import attrs
import msgspec

from csi.records import TOKENS_KEY, Credentials, VolumeSpec


@attrs.frozen(kw_only=True)
class GroupKey:
    """Equal for volumes whose reads a provider can merge."""

    namespace: str
    class_name: str
    service_account: str
    secrets: bytes


class Groups:
    """Gives out keys. Secrets enter them under a key of this process, so they tell nothing."""

    def __init__(self) -> None:
        """Make the key."""
        self._key = os.urandom(32)

    def of(self, spec: VolumeSpec, credentials: Credentials) -> GroupKey:
        """Return the key of a volume. Tokens do not count: they differ from pod to pod."""
        secrets = {key: value for key, value in credentials.secrets.items() if key != TOKENS_KEY}
        encoded = msgspec.json.encode(secrets, order="sorted")
        return GroupKey(
            namespace=spec.namespace,
            class_name=spec.class_name,
            service_account=spec.service_account,
            secrets=hashlib.blake2b(encoded, key=self._key, digest_size=16).digest(),
        )
