"""From a volume to its content: class, provider, files. Nothing here knows a keeper."""

from collections.abc import Mapping

import attrs

from csi.classes import ClassSource, ProviderClass
from csi.content import file_specs
from csi.errors import ClassUnusable, MountFailed, ProviderError
from csi.mountcall import mount_call
from csi.options import ClassOptions, parse_options, split_parameters
from csi.providers import ProviderClient
from csi.records import Credentials, ObjectVersion, VolumeSpec
from fusefs.snapshot import FileSpec


@attrs.frozen(kw_only=True)
class Content:
    """What a volume shall show, from whom it is, and how often to ask for it."""

    provider: str
    files: tuple[FileSpec, ...] = attrs.field(repr=False)
    versions: tuple[ObjectVersion, ...]
    options: ClassOptions


class Fetcher:
    """Asks the provider of a volume's class for its content."""

    def __init__(self, classes: ClassSource, providers: ProviderClient) -> None:
        """Keep both; neither is asked yet."""
        self._classes = classes
        self._providers = providers

    async def fetch(
        self, spec: VolumeSpec, credentials: Credentials, current: tuple[ObjectVersion, ...]
    ) -> Content:
        """Return the content of a volume. The class is looked up afresh.

        Raises:
            ClassError: The class is missing or cannot be used.
            MountFailed: The provider is missing, failed, or answered what cannot be used.
        """
        found = await self._classes.get(spec.namespace, spec.class_name)
        parameters, ours = split_parameters(found.parameters)
        _check(found, parameters)
        options = parse_options(found.namespace, found.name, ours)
        call = mount_call(parameters, spec, credentials, current)
        try:
            reply = await self._providers.mount(found.provider, call)
        except ProviderError as error:
            raise MountFailed(spec.namespace, spec.pod, found.provider, error) from error
        return Content(
            provider=found.provider,
            files=tuple(file_specs(reply, group=spec.group)),
            versions=reply.versions,
            options=options,
        )


def _check(found: ProviderClass, parameters: Mapping[str, str]) -> None:
    if not found.provider:
        raise ClassUnusable(
            found.namespace,
            found.name,
            problem="provider not set",
            field="spec.provider",
            remedy="name the provider, such as azure",
        )
    if not parameters:
        raise ClassUnusable(
            found.namespace,
            found.name,
            problem="parameters not set",
            field="spec.parameters",
            remedy="name at least the objects to show",
        )
