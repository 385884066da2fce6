"""Flags of ``python -m csi``, and the program as a process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from csi.config import Config, command, version
from csi.scrape import Address

REQUIRED = ("--nodeid=node-1", "--keeper-socket=/k/keeper.sock", "--class-dir=/classes")


def _parse(*flags: str) -> Config:
    seen: list[Config] = []
    result = CliRunner().invoke(command, [*REQUIRED, *flags], obj=seen.append)
    assert result.exit_code == 0, result.output
    return seen[0]


def _refused(*flags: str) -> str:
    result = CliRunner().invoke(command, [*REQUIRED, *flags], obj=lambda _: None)
    assert result.exit_code == 2
    return result.output


def test_defaults_are_those_of_the_reference() -> None:
    """Names, directories, interval and limit of the reference driver where it has the flag."""
    config = _parse()
    assert config.driver_name == "secrets-store.csi.k8s.io"
    assert config.provider_dirs == (
        Path("/etc/kubernetes/secrets-store-csi-providers"),
        Path("/var/run/secrets-store-csi-providers"),
    )
    assert (config.rotation, config.poll_interval, config.max_reply_bytes) == (
        False,
        120.0,
        4194304,
    )
    assert (config.registration_dir, config.log_json) == (None, False)
    assert config.metrics_address == Address(host=None, port=8095)
    assert config.kubelet_csi_socket == str(config.csi_socket) == "/csi/csi.sock"


@pytest.mark.parametrize(
    ("flags", "rotation"),
    [
        (["--enable-secret-rotation"], True),
        (["--enable-secret-rotation=true"], True),
        (["--enable-secret-rotation=false"], False),
        (["--enable-secret-rotation", "--rotation-poll-interval", "5s"], True),
    ],
)
def test_booleans_are_written_as_in_go(flags: list[str], *, rotation: bool) -> None:
    """With and without a value, also before another flag."""
    assert _parse(*flags).rotation is rotation


@pytest.mark.parametrize("value", ["", "0"])
def test_metrics_can_be_left_out(value: str) -> None:
    """As in the reference, whose zero means the same."""
    assert _parse(f"--metrics-addr={value}").metrics_address is None


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("unix:///csi/csi.sock", "/csi/csi.sock"),
        ("unix://tmp/csi.sock", "/tmp/csi.sock"),
        ("UNIX:///csi/csi.sock", "/csi/csi.sock"),
    ],
)
def test_endpoint_is_a_path_with_a_slash(endpoint: str, path: str) -> None:
    """The reference adds the slash that many manifests leave out."""
    assert _parse("--endpoint", endpoint).csi_socket == Path(path)


def test_every_flag_reaches_the_configuration() -> None:
    """Both ways to write a value; lists are split; the root is normalised."""
    config = _parse(
        "--additional-provider-volume-paths=/a, /b,",
        "--provider-volume",
        "/c",
        "--registration-dir=/plugins",
        "--metrics-addr=127.0.0.1:9000",
        "--ready-file=/tmp/ready",
        "--kubelet-registration-path=/var/lib/kubelet/plugins/x/csi.sock",
        "--kubelet-root=/var/lib/kubelet/",
        "--rotation-poll-interval=1h30m",
        "--rotation-poll-interval-floor=1s",
        "--rotation-jitter=0.5",
        "--class-change-spread=0",
        "--grpc-threads=8",
        "--filesystem=tmpfs",
        "--log-format-json",
        "--log-level=debug",
    )
    assert config.provider_dirs == (Path("/a"), Path("/b"), Path("/c"))
    assert config.registration_dir == Path("/plugins")
    assert config.metrics_address == Address(host="127.0.0.1", port=9000)
    assert config.ready_file == Path("/tmp/ready")
    assert config.kubelet_csi_socket == "/var/lib/kubelet/plugins/x/csi.sock"
    assert config.kubelet_root == "/var/lib/kubelet"
    assert (config.poll_interval, config.poll_interval_floor) == (5400.0, 1.0)
    assert (config.rotation_jitter, config.threads) == (0.5, 8)
    assert config.filesystem == "tmpfs"
    assert config.class_change_spread == 0.0
    assert (config.log_json, config.log_level) == (True, "debug")


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--endpoint=tcp://127.0.0.1:1", "write unix:///csi/csi.sock"),
        ("--endpoint=unix://", "write unix:///csi/csi.sock"),
        ("--rotation-poll-interval=120", "write a number and a unit"),
        ("--rotation-jitter=2", "0<=x<=1"),
        ("--enable-secret-rotation=maybe", "not a valid boolean"),
        ("--rotation-poll-interval=0s", "not a duration above zero"),
        ("--class-change-spread=5", "write a number and a unit"),
        ("--metrics-addr=8095", "write :8095"),
        ("--ready-file=/nowhere/ready", "name a file in a writable directory"),
        ("--ready-file=/", "is a directory"),
        ("--kubelet-root=kubelet", "must be an absolute path"),
        ("--max-call-recv-msg-size=0", "x>=1"),
        ("--filesystem=ramfs", "'auto', 'fuse', 'tmpfs'"),
        ("--grpc-threads=1", "2<=x<=1024"),
    ],
)
def test_wrong_values_are_told_with_the_flag(flag: str, says: str) -> None:
    """A usage error names the flag and what it takes."""
    output = " ".join(_refused(flag).split())
    assert flag.split("=", maxsplit=1)[0] in output
    assert says in output


def _bare(*flags: str) -> tuple[int, str, list[Config]]:
    seen: list[Config] = []
    result = CliRunner().invoke(command, [*REQUIRED[:2], *flags], obj=seen.append)
    return result.exit_code, " ".join(result.output.split()), seen


@pytest.mark.parametrize(
    ("flags", "directory", "kubeconfig"),
    [
        ([], None, None),
        (["--class-source=kubernetes", "--kubeconfig=/k"], None, Path("/k")),
        (["--class-dir=/classes"], Path("/classes"), None),
        (["--class-source=directory", "--class-dir=/classes"], Path("/classes"), None),
    ],
)
def test_classes_come_from_cluster_or_directory(
    flags: list[str], directory: Path | None, kubeconfig: Path | None
) -> None:
    """From the cluster, unless a directory is named."""
    _, _, (config,) = _bare(*flags)
    assert (config.class_dir, config.kubeconfig) == (directory, kubeconfig)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--class-source=directory"], "name the directory with --class-dir"),
        (["--class-source=kubernetes", "--class-dir=/classes"], "leave out --class-dir"),
        (["--class-source=etcd"], "'kubernetes', 'directory'"),
    ],
)
def test_contradicting_class_sources_are_refused(flags: list[str], says: str) -> None:
    """The message names both flags."""
    code, output, _ = _bare(*flags)
    assert code == 2
    assert "--class-source" in output
    assert says in output


def test_program_outside_a_cluster_does_not_start(tmp_path: Path) -> None:
    """One line that names the flags, and no traceback."""
    ended = subprocess.run(
        [sys.executable, "-m", "csi", *REQUIRED[:2], f"--endpoint=unix://{tmp_path}/csi.sock"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={"PATH": "/usr/bin"},
        cwd=Path(__file__).parents[3],
    )
    assert ended.returncode == 1
    assert "--class-dir" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_version_is_never_empty() -> None:
    """GetPluginInfo needs one, installed or not."""
    assert version()


def _start(directory: Path, **options: str) -> subprocess.Popen[str]:
    flags = {
        "endpoint": f"unix://{directory}/csi.sock",
        "nodeid": "node-1",
        "keeper-socket": str(directory / "keeper.sock"),
        "class-dir": str(directory),
        "metrics-addr": "0",
        **options,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "csi", *(f"--{name}={value}" for name, value in flags.items())],
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_program_stops_gracefully_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    """It serves without a keeper, says so on stderr, and leaves no socket and exit code 0."""
    with _start(tmp_path) as program:
        assert program.stderr is not None
        lines = iter(program.stderr.readline, "")
        assert any(f"serving path={tmp_path}/csi.sock" in line for line in lines)
        program.send_signal(number)
        assert "csi.app: stopped" in program.stderr.read()
    assert program.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_program_that_cannot_serve_exits_with_one(tmp_path: Path) -> None:
    """A socket that cannot be bound ends the program with one line and its remedy."""
    with _start(tmp_path, endpoint=f"unix://{tmp_path}/missing/csi.sock") as program:
        assert program.stderr is not None
        output = program.stderr.read()
    assert program.returncode == 1
    assert "create or mount it" in output
    assert "Traceback" not in output


def test_program_without_a_keeper_does_not_register(tmp_path: Path) -> None:
    """Kubelet hears nothing as long as there is no keeper, and the end is as graceful."""
    with _start(tmp_path, **{"registration-dir": str(tmp_path)}) as program:
        assert program.stderr is not None
        lines = iter(program.stderr.readline, "")
        assert any("no keeper" in line for line in lines)
        assert not list(tmp_path.glob("*-reg.sock"))
        program.terminate()
        program.stderr.read()
    assert program.returncode == 0
