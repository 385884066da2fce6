"""The Kubernetes API: the only module that knows the official client.

The client is synchronous, so each call runs in a thread and has a deadline; of the client only the
generic request is used, because its models are untyped and cost memory. Its exceptions and the
server's answers end here: what is raised is of `csi.errors`, and holds neither tokens nor anything
of a body.
"""

import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec
import trio
import urllib3
from kubernetes import client as official
from kubernetes import config as official_config
from typing_extensions import override

from csi.classes import class_of
from csi.classwatch import ClassApi, ClassEvent, ClassList, ClassStream, Found
from csi.errors import ApiNotFound, ApiUnavailable, ApiUnconfigured, ClassNotFound
from csi.linestream import LineStream
from csi.refusals import refusal

log = logging.getLogger(__name__)

_GROUP: Final = "secrets-store.csi.x-k8s.io"
_CLASSES: Final = "secretproviderclasses"
_STATUSES: Final = "secretproviderclasspodstatuses"
_DEADLINE_S: Final = 15.0
_CONNECT_S: Final = 5.0
_READ_S: Final = 10.0
_THREADS: Final = 16  # of calls at once; watches have threads of their own
_MAX_WATCHES: Final = 1024
# The server ends a watch after this; a peer that vanished without a word is noticed a little later.
_WATCH_S: Final = 300
_WATCH: Final = "watch"
_METHODS: Final = {"create": "POST", "update": "PUT"}  # all other verbs of RBAC read
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_HTTP_OK: Final = range(200, 300)


T = TypeVar("T")


class _Response(Protocol):
    """What the official client returns, as far as it is used."""

    status: int
    response: urllib3.HTTPResponse


class _Failure(msgspec.Struct):
    code: int = 0


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""


class _Item(msgspec.Struct):
    metadata: _Metadata


class _List(msgspec.Struct):
    metadata: _Metadata
    items: list[dict[str, Any]] = []


class _Event(msgspec.Struct):
    type: str
    object: dict[str, Any]


class _PodSpec(msgspec.Struct, rename="camel"):
    host_users: bool | None = None


class _Pod(msgspec.Struct):
    spec: _PodSpec


class KubeApi(ClassApi):
    """The calls of the node server to the Kubernetes API."""

    def __init__(self, client: Any, *, read_timeout: float = _READ_S) -> None:  # noqa: ANN401
        """Call with an `ApiClient` of the official library; see `load`."""
        self._client = client
        self._read_timeout = read_timeout
        self._threads = trio.CapacityLimiter(_THREADS)
        self._watches = trio.CapacityLimiter(_MAX_WATCHES)

    @classmethod
    def load(cls, kubeconfig: Path | None) -> "KubeApi":
        """Return the API that `kubeconfig` names; None: that of the cluster this pod runs in.

        Raises:
            ApiUnconfigured: It cannot be told where the API is.
        """
        configuration = official.Configuration()
        configuration.retries = urllib3.Retry(
            1, redirect=0, status=0, respect_retry_after_header=False, backoff_factor=0.1
        )
        try:
            _configure(configuration, kubeconfig)
        except (official_config.ConfigException, OSError) as error:
            problem = type(error).__name__
        else:
            client = official.ApiClient(configuration)
            client.user_agent = "akvfs"
            return cls(client)
        raise ApiUnconfigured(_unconfigured(kubeconfig, problem))

    def close(self) -> None:
        """Let go of the connections that are kept for the next call."""
        self._client.rest_client.pool_manager.clear()

    @override
    async def get_class(self, namespace: str, name: str) -> Found:
        """See `ClassApi.get_class`."""
        if not _NAME.fullmatch(name):
            raise ClassNotFound(namespace, name)  # a pod's author must not choose another path
        try:
            body = await self._call("get", _path(_CLASSES, namespace, name))
        except ApiNotFound as error:
            if error.kind_known:
                raise ClassNotFound(namespace, name) from error
            raise ApiUnavailable(str(error)) from error
        return class_of(namespace, name, _decode(body, dict[str, Any]))

    @override
    async def list_classes(self, namespace: str) -> ClassList:
        """See `ClassApi.list_classes`."""
        listed = _decode(await self._call("list", _path(_CLASSES, namespace)), _List)
        classes = {}
        for item in listed.items:
            name = msgspec.convert(item, _Item).metadata.name
            classes[name] = class_of(namespace, name, item)
        return ClassList(version=listed.metadata.resource_version, classes=classes)

    @override
    @asynccontextmanager
    async def watch_classes(self, namespace: str, version: str) -> AsyncIterator[ClassStream]:
        """See `ClassApi.watch_classes`."""
        path = _path(_CLASSES, namespace)
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_S),
        }
        connection = LineStream()

        def connect() -> None:
            connection.opened(self._send("watch", path, query, None, _WATCH_S + _READ_S).response)

        try:
            with trio.move_on_after(_DEADLINE_S) as connecting:
                await trio.to_thread.run_sync(
                    connect, abandon_on_cancel=True, limiter=self._watches
                )
            if connecting.cancelled_caught:
                raise _no_answer(_WATCH, path)
            yield _Watch(connection, namespace, path, self._watches)
        finally:
            connection.close()

    async def get_status(self, namespace: str, name: str) -> dict[str, Any]:
        """Return a SecretProviderClassPodStatus.

        Raises:
            ApiError: There is none, or no answer.
        """
        return _decode(await self._call("get", _path(_STATUSES, namespace, name)), dict[str, Any])

    async def create_status(self, namespace: str, document: Mapping[str, Any]) -> None:
        """Create a SecretProviderClassPodStatus.

        Raises:
            ApiConflict: There is one of this name.
            ApiError: It was not created, or there is no answer.
        """
        await self._call("create", _path(_STATUSES, namespace), document)

    async def replace_status(self, namespace: str, name: str, document: Mapping[str, Any]) -> None:
        """Replace a SecretProviderClassPodStatus of the version that `document` names.

        Raises:
            ApiConflict: It was changed meanwhile.
            ApiError: It was not replaced, or there is no answer.
        """
        await self._call("update", _path(_STATUSES, namespace, name), document)

    async def has_user_namespace(self, namespace: str, pod: str) -> bool:
        """Return whether a pod has a user namespace of its own (``hostUsers: false``).

        Raises:
            ApiError: There is no such pod, or no answer.
        """
        body = await self._call("get", f"/api/v1/namespaces/{namespace}/pods/{pod}")
        return _decode(body, _Pod).spec.host_users is False

    async def _call(self, verb: str, path: str, document: Mapping[str, Any] | None = None) -> bytes:
        def call() -> bytes:
            response = self._send(verb, path, {}, document, self._read_timeout).response
            with _failures_told(verb, path):
                return response.data

        with trio.move_on_after(_DEADLINE_S):
            return await trio.to_thread.run_sync(
                call, abandon_on_cancel=True, limiter=self._threads
            )
        raise _no_answer(verb, path)

    def _send(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str],
        document: Mapping[str, Any] | None,
        read_timeout: float,
    ) -> _Response:
        """Send a request, in a thread; return the answer, whose body is not read, if it is good."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        with _failures_told(verb, path):
            request = self._client.param_serialize(
                _METHODS.get(verb, "GET"),
                path,
                query_params=list(query.items()),
                header_params=headers,
                body=document,
                auth_settings=["BearerToken"],
            )
            response: _Response = self._client.call_api(
                *request, _request_timeout=(_CONNECT_S, read_timeout)
            )
            if response.status in _HTTP_OK:
                return response
            body = response.response.data
        raise refusal(verb, path, response.status, response.response.headers, body)


class _Watch(ClassStream):
    """The changes in one namespace."""

    def __init__(
        self, connection: LineStream, namespace: str, path: str, threads: trio.CapacityLimiter
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._path = path
        self._threads = threads

    @override
    async def next(self) -> ClassEvent | None:
        """See `ClassStream.next`."""
        line = await trio.to_thread.run_sync(
            self._read, abandon_on_cancel=True, limiter=self._threads
        )
        return self._event(line) if line else None

    def _read(self) -> bytes:
        with _failures_told(_WATCH, self._path):
            return self._connection.read_line()

    def _event(self, line: bytes) -> ClassEvent:
        event = _decode(line, _Event)
        if event.type == "ERROR":
            failure = msgspec.convert(event.object, _Failure)
            raise refusal(_WATCH, self._path, failure.code)
        metadata = msgspec.convert(event.object, _Item).metadata
        if event.type == "BOOKMARK":
            return ClassEvent(version=metadata.resource_version)
        deleted = event.type == "DELETED"
        return ClassEvent(
            version=metadata.resource_version,
            name=metadata.name,
            found=None if deleted else class_of(self._namespace, metadata.name, event.object),
        )


def _configure(configuration: Any, kubeconfig: Path | None) -> None:  # noqa: ANN401 - untyped
    in_cluster: Any = official_config.load_incluster_config
    from_file: Any = official_config.load_kube_config
    if kubeconfig is None:
        in_cluster(client_configuration=configuration)
    else:
        from_file(config_file=str(kubeconfig), client_configuration=configuration)


def _path(kind: str, namespace: str, name: str = "") -> str:
    path = f"/apis/{_GROUP}/v1/namespaces/{namespace}/{kind}"
    return f"{path}/{name}" if name else path


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = "the Kubernetes API answers what is no JSON of the expected form"
    raise ApiUnavailable(message)


@contextmanager
def _failures_told(verb: str, path: str) -> Iterator[None]:
    """Raise what goes wrong on the way to the server as `ApiUnavailable`."""
    try:
        yield
    except (
        urllib3.exceptions.HTTPError,
        official.ApiException,
        official_config.ConfigException,
        OSError,
    ) as error:
        reason = getattr(error, "reason", None)  # of the last attempt
        kind = type(reason if isinstance(reason, Exception) else error).__name__
    else:
        return
    message = f"cannot {verb} {path}: the Kubernetes API cannot be reached ({kind})"
    raise ApiUnavailable(message)


def _no_answer(verb: str, path: str) -> ApiUnavailable:
    return ApiUnavailable(
        f"cannot {verb} {path}: the Kubernetes API has not answered within {_DEADLINE_S:.0f} s"
    )


def _unconfigured(kubeconfig: Path | None, problem: str) -> str:
    if kubeconfig is not None:
        return (
            f"cannot use the kubeconfig ({problem}): --kubeconfig: {kubeconfig}: name a valid one"
        )
    return (
        "no Kubernetes API: --class-source: this is no pod with a service account; set "
        "--kubeconfig, or read the classes from a directory with --class-dir"
    )
