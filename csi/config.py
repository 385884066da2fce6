"""What the node server is told at its start: the flags of ``python -m csi``, checked once.

Names and meanings are the reference driver's where it has the flag. Booleans may be written as Go's
flags are (``--enable-secret-rotation=true``), durations too (``2m``).
"""

import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import attrs
import click
from typing_extensions import override

from csi.durations import parse_duration
from csi.options import FILESYSTEMS, Filesystem
from csi.scrape import Address

_UNIX: Final = "unix://"
_MAX_THREADS: Final = 1024
# By the time kubelet has waited two minutes for a publish, it has given up.
_PROVIDER_TIMEOUT_S: Final = 110.0


@attrs.frozen(kw_only=True)
class Config:
    """A valid configuration.

    Attributes:
        registration_dir: None: kubelet is told by somebody else, or not at all.
        metrics_address: None: nobody is told.
        ready_file: There while the server is ready; None: nobody looks.
        kubelet_csi_socket: The path of the CSI socket as kubelet sees it.
        class_dir: Where classes are read from; None: from the Kubernetes API.
        kubeconfig: Names the Kubernetes API; None: that of the cluster of this pod.
        provider_dirs: Where providers have their sockets, in the order of the search.
        poll_interval: Seconds between two refreshes of a class that does not say.
        poll_interval_floor: What a class may not go below.
        rotation_jitter: By how much of itself an interval grows on this node.
        filesystem: What volumes are whose class does not say; with `fuse`, all of them.
        class_change_spread: Seconds within which the volumes of an edited class are refreshed.
        threads: How many CSI calls run at once; publishes get half of them.
    """

    csi_socket: Path
    node_id: str
    driver_name: str
    keeper_socket: Path
    kubelet_root: str
    kubelet_csi_socket: str
    registration_dir: Path | None
    metrics_address: Address | None
    ready_file: Path | None
    class_dir: Path | None
    kubeconfig: Path | None
    provider_dirs: tuple[Path, ...]
    max_reply_bytes: int
    rotation: bool
    poll_interval: float
    poll_interval_floor: float
    rotation_jitter: float
    class_change_spread: float
    filesystem: Filesystem = "auto"
    threads: int = 64
    provider_timeout: float = _PROVIDER_TIMEOUT_S
    log_level: str = "info"
    log_json: bool = False


class _Duration(click.ParamType[float]):
    """Seconds, written as Go writes durations."""

    name = "duration"

    def __init__(self, *, zero: bool = False) -> None:
        """Take a duration above zero, or also `zero`."""
        self._zeros = ("0", "0s") if zero else ()

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds."""
        if isinstance(value, float):
            return value
        if value in self._zeros:
            return 0.0
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _UnixSocket(click.ParamType[Path]):
    """An endpoint, such as ``unix:///csi/csi.sock``; a missing slash is added."""

    name = "endpoint"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path of the socket."""
        if isinstance(value, Path):
            return value
        scheme, path = value[: len(_UNIX)], value[len(_UNIX) :]
        if scheme.lower() != _UNIX or not path:
            self.fail(f"{value!r} is not a unix socket; write unix:///csi/csi.sock", param, ctx)
        return Path("/" + path.lstrip("/"))


class _ListenAddress(click.ParamType["Address | None"]):
    """Where to listen, written as Go writes it."""

    name = "address"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address | None:
        """Return the address, or None for none."""
        if value in ("", "0"):
            return None
        try:
            return Address.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _go_bool(name: str, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return an option for ``--name``, ``--name=true`` and ``--name=false``."""
    return click.option(
        name, type=bool, is_flag=False, flag_value="true", default="false", help=text
    )


_DIRECTORY: Final = click.Path(file_okay=False, path_type=Path)
_SECONDS: Final = _Duration()
_KUBERNETES: Final = "kubernetes"
_FOLDER: Final = "directory"


@click.command(context_settings={"show_default": True})
@click.option("--endpoint", type=_UnixSocket(), default="unix:///csi/csi.sock")
@click.option("--nodeid", required=True, help="Name of the node.")
@click.option("--drivername", default="secrets-store.csi.k8s.io")
@click.option(
    "--keeper-socket", type=click.Path(path_type=Path), required=True, help="The keeper's socket."
)
@click.option("--kubelet-root", default="/var/lib/kubelet", help="Kubelet's root directory.")
@click.option(
    "--kubelet-registration-path",
    default="",
    help="The CSI socket as kubelet sees it, if it differs.",
)
@click.option(
    "--registration-dir", default="", help="Kubelet's plugins_registry; empty: do not register."
)
@click.option(
    "--metrics-addr",
    type=_ListenAddress(),
    default=":8095",
    help="Where Prometheus finds /metrics; 0: nowhere.",
)
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that is there while the server is ready.  [default: none]",
)
@click.option(
    "--class-source",
    type=click.Choice([_KUBERNETES, _FOLDER]),
    default=None,
    help="Where SecretProviderClasses come from.  [default: directory with --class-dir, else "
    "kubernetes]",
)
@click.option("--class-dir", type=_DIRECTORY, help="SecretProviderClasses, as YAML.")
@click.option(
    "--kubeconfig",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Names the Kubernetes API.  [default: the service account of this pod]",
)
@click.option("--provider-volume", default="/var/run/secrets-store-csi-providers")
@click.option(
    "--additional-provider-volume-paths",
    default="/etc/kubernetes/secrets-store-csi-providers",
    help="Directories, separated by commas, that are searched first.",
)
@_go_bool("--enable-secret-rotation", "Refresh the content of volumes.")
@click.option("--rotation-poll-interval", type=_SECONDS, default="2m")
@click.option(
    "--rotation-poll-interval-floor",
    type=_SECONDS,
    default="10s",
    help="The shortest akvfs/rotationPollInterval that a class gets.",
)
@click.option(
    "--rotation-jitter",
    type=click.FloatRange(0, 1),
    default=0.1,
    help="By how much of itself an interval grows, another part on each node.",
)
@click.option(
    "--class-change-spread",
    type=_Duration(zero=True),
    default="5s",
    help="The time within which an edited class refreshes its volumes; 0s: at once.",
)
@click.option(
    "--filesystem",
    type=click.Choice(FILESYSTEMS),
    default="auto",
    help="What volumes are whose class does not say: FUSE, tmpfs, or FUSE where it can be had. "
    "With fuse, no class may say otherwise.",
)
@click.option(
    "--max-call-recv-msg-size",
    type=click.IntRange(1),
    default=4 << 20,
    help="The largest reply of a provider, in bytes.",
)
@click.option("--grpc-threads", type=click.IntRange(2, _MAX_THREADS), default=64)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info"
)
@_go_bool("--log-format-json", "One JSON object a line.")
@click.version_option(package_name="akvfs")
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - click's options
    """Serve Key Vault volumes to kubelet: the node server of akvfs."""
    context.obj(_config(options))


def _config(options: dict[str, Any]) -> Config:
    socket: Path = options["endpoint"]
    registration = options["registration_dir"]
    providers = [
        *options["additional_provider_volume_paths"].split(","),
        options["provider_volume"],
    ]
    root = options["kubelet_root"]
    if not root.startswith("/"):
        message = f"{root!r} must be an absolute path"
        raise click.BadParameter(message, param_hint="--kubelet-root")
    return Config(
        csi_socket=socket,
        node_id=options["nodeid"],
        driver_name=options["drivername"],
        keeper_socket=options["keeper_socket"],
        kubelet_root=os.path.normpath(root),
        kubelet_csi_socket=options["kubelet_registration_path"] or str(socket),
        registration_dir=Path(registration) if registration else None,
        metrics_address=options["metrics_addr"],
        ready_file=_ready_file(options["ready_file"]),
        class_dir=_class_dir(options),
        kubeconfig=options["kubeconfig"],
        provider_dirs=tuple(Path(each.strip()) for each in providers if each.strip()),
        max_reply_bytes=options["max_call_recv_msg_size"],
        rotation=options["enable_secret_rotation"],
        poll_interval=options["rotation_poll_interval"],
        poll_interval_floor=options["rotation_poll_interval_floor"],
        rotation_jitter=options["rotation_jitter"],
        filesystem=options["filesystem"],
        class_change_spread=options["class_change_spread"],
        threads=options["grpc_threads"],
        log_level=options["log_level"],
        log_json=options["log_format_json"],
    )


def _ready_file(path: Path | None) -> Path | None:
    if path is not None and not os.access(path.parent, os.W_OK):
        message = f"cannot write in {path.parent}; name a file in a writable directory"
        raise click.BadParameter(message, param_hint="--ready-file")
    return path


def _class_dir(options: dict[str, Any]) -> Path | None:
    directory: Path | None = options["class_dir"]
    source = options["class_source"] or (_KUBERNETES if directory is None else _FOLDER)
    if source == _FOLDER and directory is None:
        message = "name the directory with --class-dir"
    elif source == _KUBERNETES and directory is not None:
        message = "leave out --class-dir, or the source is directory"
    else:
        return directory
    raise click.BadParameter(message, param_hint="--class-source")


def version() -> str:
    """Return the version of the installed package."""
    try:
        return metadata.version("akvfs")
    except metadata.PackageNotFoundError:
        return "0.0.0"  # run from a source tree
