"""Pods with a user namespace of their own, as the API tells of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import pytest

from csi.usernamespaces import UserNamespaces
from fakes.kubeapi import kube_api
from fakes.kubelet import publish_request

if TYPE_CHECKING:
    from pathlib import Path

SPEC = publish_request().spec


@pytest.mark.parametrize(
    ("pod", "expected"),
    [({"hostUsers": False}, True), ({"hostUsers": True}, False), ({}, False)],
)
async def test_pod_says_whether_it_has_one(
    tmp_path: Path, pod: dict[str, bool], *, expected: bool
) -> None:
    """Only `hostUsers: false` means that ids are mapped."""
    with kube_api(tmp_path) as kube:
        kube.server.put("pods", SPEC.namespace, SPEC.pod, {"spec": pod})
        assert await UserNamespaces(kube.api).has_one(SPEC) is expected


@pytest.mark.parametrize("status", [403, 404, 500, None])
async def test_pod_that_cannot_be_read_has_none(
    tmp_path: Path, status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """With one line in the log."""
    caplog.set_level(logging.WARNING, "csi")
    with kube_api(tmp_path) as kube:
        kube.server.fail("get", "pods", status, status)
        assert not await UserNamespaces(kube.api).has_one(SPEC)
    assert [record.name for record in caplog.records if record.name.startswith("csi")] == [
        "csi.usernamespaces"
    ]


async def test_pod_without_a_name_is_not_asked_for(tmp_path: Path) -> None:
    """Without `podInfoOnMount` nobody can be asked."""
    with kube_api(tmp_path) as kube:
        assert not await UserNamespaces(kube.api).has_one(attrs.evolve(SPEC, attributes={}))
