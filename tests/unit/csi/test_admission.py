"""Pods for which no volume is published."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from csi.admission import Admission
from csi.errors import UserNamespace
from fakes.kubeapi import kube_api
from fakes.kubelet import publish_request

if TYPE_CHECKING:
    from pathlib import Path

SPEC = publish_request().spec


async def test_pod_with_a_user_namespace_is_refused(tmp_path: Path) -> None:
    """The field stands in the message."""
    with kube_api(tmp_path) as kube:
        kube.server.put("pods", SPEC.namespace, SPEC.pod, {"spec": {"hostUsers": False}})
        with pytest.raises(UserNamespace, match="hostUsers: false is not supported yet"):
            await Admission(kube.api).admit(SPEC)


@pytest.mark.parametrize("status", [403, 404, 500, None])
async def test_pod_that_cannot_be_read_is_admitted(
    tmp_path: Path, status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """With one line in the log."""
    caplog.set_level(logging.WARNING, "csi")
    with kube_api(tmp_path) as kube:
        kube.server.fail("get", "pods", status, status)
        await Admission(kube.api).admit(SPEC)
    assert [record.name for record in caplog.records if record.name.startswith("csi")] == [
        "csi.admission"
    ]
