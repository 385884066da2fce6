"""The content of a vault: secrets, their versions and states. Synchronous, no I/O.

Names and version ids are case-insensitive, as in the service. `latest` is the version that was
set last. A deleted secret is kept aside (soft delete) and blocks its name until it is recovered or
purged.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

import attrs

from provider.emulator.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
MAX_VALUE_BYTES = 25_600  # "25k bytes"
MAX_CONTENT_TYPE = 255
MAX_TAGS = 15
MAX_TAG_TEXT = 256
RETENTION_DAYS = 90
RECOVERY_LINK = "https://go.microsoft.com/fwlink/?linkid=2125182"


@attrs.frozen(kw_only=True)
class SecretVersion:
    """One version of a secret; times are Unix seconds."""

    id: str
    value: str = attrs.field(repr=False)
    created: int
    updated: int
    enabled: bool = True
    not_before: int | None = None
    expires: int | None = None
    content_type: str | None = None
    tags: dict[str, str] = attrs.Factory(dict)


@attrs.frozen(kw_only=True)
class Draft:
    """What a caller says about a version: all of a new one, or a change of the attributes.

    `None` means "not said"; only a new version has a value.
    """

    value: str | None = attrs.field(repr=False, default=None)
    enabled: bool | None = None
    not_before: int | None = None
    expires: int | None = None
    content_type: str | None = None
    tags: dict[str, str] | None = None
    created: int | None = None  # admin only: tests of version order


@attrs.frozen(kw_only=True)
class Secret:
    """A secret with its versions, oldest first."""

    name: str
    versions: tuple[SecretVersion, ...]
    deleted: int | None = None  # when, in Unix seconds

    @property
    def latest(self) -> SecretVersion:
        """The version that was set last."""
        return self.versions[-1]

    def version(self, version_id: str) -> SecretVersion | None:
        """Return one version, or None when there is no such version."""
        wanted = version_id.lower()
        return next((version for version in self.versions if version.id == wanted), None)


class Vault:
    """Secrets by name. Every method that changes something calls `on_change` afterwards."""

    def __init__(self, clock: Callable[[], float], on_change: Callable[[], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self._secrets: dict[str, Secret] = {}  # by lower-case name, deleted ones included

    def find(self, name: str) -> Secret:
        """Return a secret that is not deleted.

        Raises:
            ServiceError: 400 for a name that cannot be one, 404 SecretNotFound.
        """
        check_name(name)
        secret = self._secrets.get(name.lower())
        if secret is None or secret.deleted is not None:
            raise secret_not_found(name)
        return secret

    def read(self, name: str, version_id: str | None) -> tuple[Secret, SecretVersion]:
        """Return the version that a GET asks for.

        Raises:
            ServiceError: 404, or 403 SecretDisabled. `nbf` and `exp` do not matter to a read.
        """
        secret, version = self.locate(name, version_id)
        if not version.enabled:
            message = "Operation get is not allowed on a disabled secret."
            raise ServiceError(403, "Forbidden", message, inner="SecretDisabled")
        return secret, version

    def locate(self, name: str, version_id: str | None) -> tuple[Secret, SecretVersion]:
        """Return a version whatever its state; None is the latest."""
        secret = self.find(name)
        version = secret.version(version_id) if version_id else secret.latest
        if version is None:
            message = f"{name}/{version_id}"
            raise secret_not_found(message)
        return secret, version

    def set(self, name: str, draft: Draft) -> tuple[Secret, SecretVersion]:
        """Add a version, and the secret with its first one.

        Raises:
            ServiceError: 400 for what breaks a limit, 409 for the name of a deleted secret.
        """
        check_name(name)
        check_draft(draft)
        if draft.value is None:
            message = "Property value is required: give the secret's value"
            raise bad_parameter(message)
        known = self._secrets.get(name.lower())
        if known is not None and known.deleted is not None:
            raise _name_is_deleted(name)
        now = int(self._clock()) if draft.created is None else draft.created
        version = SecretVersion(
            id=uuid.uuid4().hex,
            value=draft.value,
            created=now,
            updated=now,
            enabled=draft.enabled is not False,
            not_before=draft.not_before,
            expires=draft.expires,
            content_type=draft.content_type,
            tags=dict(draft.tags or {}),
        )
        older = known.versions if known is not None else ()
        stored_name = known.name if known is not None else name
        secret = Secret(name=stored_name, versions=(*older, version))
        self._put(secret)
        return secret, version

    def update(
        self, name: str, version_id: str | None, draft: Draft
    ) -> tuple[Secret, SecretVersion]:
        """Change attributes of one version; what the draft does not say stays."""
        secret, version = self.locate(name, version_id)
        check_draft(draft)
        changes = attrs.asdict(
            draft,
            recurse=False,
            filter=lambda field, value: value is not None and field.name != "value",
        )
        changed = attrs.evolve(version, updated=int(self._clock()), **changes)
        versions = tuple(changed if old.id == version.id else old for old in secret.versions)
        secret = attrs.evolve(secret, versions=versions)
        self._put(secret)
        return secret, changed

    def delete(self, name: str) -> Secret:
        """Soft-delete a secret."""
        secret = attrs.evolve(self.find(name), deleted=int(self._clock()))
        self._put(secret)
        return secret

    def find_deleted(self, name: str) -> Secret:
        """Return a deleted secret."""
        check_name(name)
        secret = self._secrets.get(name.lower())
        if secret is None or secret.deleted is None:
            raise ServiceError(404, "SecretNotFound", f"Deleted Secret not found: {name}")
        return secret

    def recover(self, name: str) -> Secret:
        """Undo a delete."""
        secret = attrs.evolve(self.find_deleted(name), deleted=None)
        self._put(secret)
        return secret

    def purge(self, name: str) -> None:
        """Forget a deleted secret for good."""
        self.find_deleted(name)
        del self._secrets[name.lower()]
        self._on_change()

    def names(self, *, deleted: bool = False) -> Iterator[Secret]:
        """Yield the secrets, or the deleted ones, in the order of their names."""
        for name in sorted(self._secrets):
            if (self._secrets[name].deleted is not None) is deleted:
                yield self._secrets[name]

    def dump(self) -> list[Secret]:
        """Return everything, for an export."""
        return list(self._secrets.values())

    def load(self, secrets: list[Secret]) -> None:
        """Replace everything by what `dump` returned."""
        self._secrets = {secret.name.lower(): secret for secret in secrets}
        self._on_change()

    def _put(self, secret: Secret) -> None:
        self._secrets[secret.name.lower()] = secret
        self._on_change()


def bad_parameter(message: str) -> ServiceError:
    """Return the service's answer to a request that breaks a rule."""
    return ServiceError(400, "BadParameter", message)


def secret_not_found(what: str) -> ServiceError:
    """Return the service's 404; its text also covers a deleted secret."""
    message = (
        f"A secret with (name/id) {what} was not found in this key vault. If you recently deleted"
        " this secret you may be able to recover it using the correct recovery command. For help"
        f" resolving this issue, please see {RECOVERY_LINK}"
    )
    return ServiceError(404, "SecretNotFound", message)


def check_name(name: str) -> None:
    """Refuse a name that no secret can have."""
    if not SECRET_NAME.fullmatch(name):
        message = f"The request URI contains an invalid name: {name}"
        raise bad_parameter(message)


def check_draft(draft: Draft) -> None:
    """Refuse what is longer or more than the service takes."""
    if draft.value is not None and len(draft.value.encode()) > MAX_VALUE_BYTES:
        message = f"The secret value is longer than {MAX_VALUE_BYTES} bytes."
        raise bad_parameter(message)
    if draft.content_type is not None and len(draft.content_type) > MAX_CONTENT_TYPE:
        message = f"contentType is longer than {MAX_CONTENT_TYPE} characters."
        raise bad_parameter(message)
    tags = draft.tags or {}
    if len(tags) > MAX_TAGS:
        message = f"A secret has at most {MAX_TAGS} tags."
        raise bad_parameter(message)
    if any(len(text) > MAX_TAG_TEXT for pair in tags.items() for text in pair):
        message = f"A tag's name or value is longer than {MAX_TAG_TEXT} characters."
        raise bad_parameter(message)


def _name_is_deleted(name: str) -> ServiceError:
    message = (
        f"Secret {name} is currently in a deleted but recoverable state, and its name cannot be"
        " reused; in this state, the secret can only be recovered or purged."
    )
    return ServiceError(409, "Conflict", message, inner="ObjectIsDeletedButRecoverable")
