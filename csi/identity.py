"""The Identity service: who the driver is, what it can do, and whether it works."""

from typing import Final

import attrs

from csi.keeper import KeeperLink

CONTROLLER_SERVICE: Final = "CONTROLLER_SERVICE"


@attrs.frozen(kw_only=True)
class PluginInfo:
    """The name and version of the driver."""

    name: str
    version: str


class Identity:
    """Answers questions about the driver."""

    def __init__(self, *, driver_name: str, version: str, link: KeeperLink) -> None:
        """Keep the names; `link` is asked when somebody probes."""
        self._info = PluginInfo(name=driver_name, version=version)
        self._link = link

    def info(self) -> PluginInfo:
        """Return the name and version of the driver."""
        return self._info

    def capabilities(self) -> tuple[str, ...]:
        """Return the services that the driver has, as the CSI names them.

        The controller service is announced, as the reference does, but can do nothing.
        """
        return (CONTROLLER_SERVICE,)

    async def probe(self) -> bool:
        """Return whether volumes can be published: the keeper answers.

        Providers are not asked: one that is missing must not restart the driver of the others.
        """
        return await self._link.answers()
