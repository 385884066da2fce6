"""Classes that cannot be used, over the real socket: refused, without effect, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
import grpc
import pytest

from harness.node import CLASS, PROVIDER
from harness.refusals import MOUNT_FAILED, Refusal, check_accepted, check_refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.kubelet import PodVolume
    from harness.node import Node

BAD: Final = "bad"
OBJECTS: Final = {"objects": "any"}


@attrs.frozen(kw_only=True)
class Row:
    """One class that cannot be used, and the answer."""

    provider: str | None
    parameters: Mapping[str, Any] | None
    refusal: Refusal


def row(
    name: str,
    *,
    provider: str | None = PROVIDER,
    parameters: Mapping[str, Any] | None = OBJECTS,
    **answer: str,
) -> Any:  # noqa: ANN401
    """Return a parameter of the table."""
    refusal = Refusal(code=grpc.StatusCode.FAILED_PRECONDITION, **answer)
    return pytest.param(Row(provider=provider, parameters=parameters, refusal=refusal), id=name)


ROWS: Final = [
    row(
        "no-provider",
        provider=None,
        starts="provider not set in shop/bad",
        field="spec.provider",
        remedy="name the provider, such as azure",
    ),
    row(
        "empty-provider",
        provider="",
        starts="provider not set in shop/bad",
        field="spec.provider",
        remedy="name the provider, such as azure",
    ),
    row(
        "no-parameters",
        parameters=None,
        starts="parameters not set in shop/bad",
        field="spec.parameters",
        remedy="name at least the objects to show",
    ),
    row(
        "empty-parameters",
        parameters={},
        starts="parameters not set in shop/bad",
        field="spec.parameters",
        remedy="name at least the objects to show",
    ),
    row(
        "only-our-parameters",
        parameters={"akvfs/filesystem": "fuse"},
        starts="parameters not set in shop/bad",
        field="spec.parameters",
        remedy="name at least the objects to show",
    ),
    row(
        "parameter-not-a-string",
        parameters={"usePodIdentity": False},
        starts="wrong type in shop/bad",
        field="spec.parameters",
        remedy="put numbers and booleans in quotes",
    ),
    row(
        "unavailable-filesystem",
        parameters={**OBJECTS, "akvfs/filesystem": "ramfs"},
        starts="option 'ramfs' is not available in shop/bad",
        field='spec.parameters["akvfs/filesystem"]',
        remedy="use one of: auto, fuse, tmpfs",
    ),
    row(
        "interval-without-unit",
        parameters={**OBJECTS, "akvfs/rotationPollInterval": "120"},
        starts="option not understood in shop/bad",
        field='spec.parameters["akvfs/rotationPollInterval"]',
        remedy="write a number and a unit",
    ),
    row(
        "unknown-provider",
        provider="nobody",
        starts=f'{MOUNT_FAILED}provider not found: provider "nobody"',
        field="spec.provider",
        remedy="install the provider on this node, or correct the name",
    ),
    row(
        "provider-with-a-path",
        provider="../providers/fake",
        starts=f'{MOUNT_FAILED}invalid provider: provider "../providers/fake"',
        field="spec.provider",
        remedy="must match ^[a-zA-Z0-9_-]{0,30}$",
    ),
    row(
        "provider-with-long-name",
        provider="p" * 31,
        starts=f'{MOUNT_FAILED}invalid provider: provider "{"p" * 31}"',
        field="spec.provider",
        remedy="must match ^[a-zA-Z0-9_-]{0,30}$",
    ),
]


@pytest.mark.parametrize("case", ROWS)
def test_bad_class_leaves_nothing(node: Node, volume: PodVolume, case: Row) -> None:
    """A bad class is refused with field and remedy; put right, the same volume is published."""
    node.write_class(BAD, provider=case.provider, parameters=case.parameters)
    check_refused(node, volume, case.refusal, volume_context=volume.context(BAD))
    check_accepted(node, volume)


def test_unknown_class_is_not_found(node: Node, volume: PodVolume) -> None:
    """A class that does not exist is NotFound, in the words that people search for."""
    refusal = Refusal(
        code=grpc.StatusCode.NOT_FOUND,
        starts=(
            "failed to get secretproviderclass shop/typo, error: "
            'secretproviderclasses.secrets-store.csi.x-k8s.io "typo" not found'
        ),
        field="volumeAttributes.secretProviderClass",
        remedy="create the class in the pod's namespace, or correct the name",
    )
    check_refused(node, volume, refusal, volume_context=volume.context("typo"))
    check_accepted(node, volume)


def test_class_of_another_namespace_is_not_found(node: Node, volume: PodVolume) -> None:
    """A class is looked up in the pod's namespace only."""
    context = {**volume.context(CLASS), "csi.storage.k8s.io/pod.namespace": "other"}
    refusal = Refusal(
        code=grpc.StatusCode.NOT_FOUND,
        starts="failed to get secretproviderclass other/app, error: ",
        field="volumeAttributes.secretProviderClass",
        remedy="create the class in the pod's namespace",
    )
    check_refused(node, volume, refusal, volume_context=context)
    check_accepted(node, volume)
