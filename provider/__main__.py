"""`python -m provider`: the Key Vault provider on a unix socket."""

from __future__ import annotations

from pathlib import Path

import click
from typing_extensions import override

from provider import coredump, logs
from provider.app import Config, run
from provider.errors import InvalidRequest
from provider.golang import parse_bool


class GoBool(click.ParamType[bool]):
    """A boolean as Go's flag package reads it."""

    name = "bool"

    @override
    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> bool:
        """Return the flag's value."""
        try:
            return parse_bool(str(value))
        except InvalidRequest as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.option(
    "--endpoint",
    default="unix:///tmp/azure.sock",
    show_default=True,
    help="Where the provider serves, as unix:///path.",
)
@click.option(
    "--cloud-name",
    default="AzurePublicCloud",
    show_default=True,
    help="The cloud of classes that name none.",
)
@click.option(
    "--cloud-files-dir",
    "cloud_files",
    multiple=True,
    metavar="DIR",
    help="A directory whose files may describe custom clouds; may be repeated.",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A file that is there while the provider serves.",
)
@click.option(
    "--log-format-json",
    is_flag=False,
    flag_value="true",  # as with Go's flags, both --log-format-json and --log-format-json=true
    default="false",
    type=GoBool(),
    help="Write log records as JSON.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    help="The lowest level that is written.",
)
def main(
    *,
    endpoint: str,
    cloud_name: str,
    cloud_files: tuple[str, ...],
    ready_file: Path | None,
    log_format_json: bool,
    log_level: str,
) -> None:
    """Serve Azure Key Vault to a secrets store driver until SIGTERM."""
    coredump.forbid()
    logs.configure(level=log_level, as_json=log_format_json)
    try:
        run(
            Config(
                endpoint=endpoint,
                cloud_name=cloud_name,
                cloud_files=cloud_files,
                ready_file=ready_file,
            )
        )
    except InvalidRequest as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
