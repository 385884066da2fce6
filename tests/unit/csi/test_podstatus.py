"""What a SecretProviderClassPodStatus shall say."""

from __future__ import annotations

import attrs

from csi.podstatus import PodStatus, StatusKey, desired_status, key_of, merged, new_document
from csi.records import POD_UID_KEY, ObjectVersion, TargetPath, VolumeSpec
from fakes.kubelet import publish_request

VERSIONS = (ObjectVersion("secret/b", "2"), ObjectVersion("secret/a", "1"))


def _spec() -> VolumeSpec:
    return publish_request().spec


def _status() -> PodStatus:
    spec = _spec()
    key = key_of(spec)
    assert key is not None
    status = desired_status(key, [(spec, VERSIONS)], node_id="node-1")
    assert status is not None
    return status


def test_document_is_the_references() -> None:
    """Name, label, one owner, objects sorted by id, mounted."""
    spec, document = _spec(), new_document(_status())
    assert document == {
        "apiVersion": "secrets-store.csi.x-k8s.io/v1",
        "kind": "SecretProviderClassPodStatus",
        "metadata": {
            "name": f"{spec.pod}-{spec.namespace}-{spec.class_name}",
            "namespace": spec.namespace,
            "labels": {"internal.secrets-store.csi.k8s.io/node-name": "node-1"},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": spec.pod, "uid": spec.pod_uid}
            ],
        },
        "status": {
            "podName": spec.pod,
            "secretProviderClassName": spec.class_name,
            "mounted": True,
            "targetPath": spec.target,
            "objects": [
                {"id": "secret/a", "version": "1"},
                {"id": "secret/b", "version": "2"},
            ],
        },
    }


def test_document_that_says_so_already_is_equal() -> None:
    """So it is not written; what the server and others added does not count."""
    stored = new_document(_status())
    stored["metadata"].update(resourceVersion="7", annotations={"theirs": "x"}, uid="u")
    stored["metadata"]["labels"]["theirs"] = "y"
    assert merged(stored, _status()) == stored


def test_merge_keeps_what_others_put_there() -> None:
    """Only our label, the owner and the status are ours."""
    stored = {"metadata": {"resourceVersion": "7", "labels": {"theirs": "y"}, "finalizers": ["f"]}}
    wanted = merged(stored, _status())
    assert wanted["metadata"]["resourceVersion"] == "7"
    assert wanted["metadata"]["finalizers"] == ["f"]
    assert wanted["metadata"]["labels"]["theirs"] == "y"
    assert stored["metadata"]["labels"] == {"theirs": "y"}


def test_object_without_labels_is_merged() -> None:
    """The reference panics here."""
    wanted = merged({"metadata": {"labels": None}, "status": None}, _status())
    assert list(wanted["metadata"]["labels"].values()) == ["node-1"]


def test_shared_object_does_not_change_in_turns() -> None:
    """The first target counts, in whatever order they come."""
    one = attrs.evolve(_spec(), target=TargetPath("/a"))
    two = attrs.evolve(_spec(), target=TargetPath("/b"))
    key = key_of(one)
    assert key is not None
    shown = [(two, ()), (one, VERSIONS)]
    for volumes in (shown, shown[::-1]):
        status = desired_status(key, volumes, node_id="n")
        assert status is not None
        assert status.target == "/a"


def test_object_without_volumes_says_nothing() -> None:
    """Its pod is on its way out."""
    key = StatusKey(namespace="shop", pod="gone", class_name="vault")
    assert desired_status(key, [(_spec(), VERSIONS)], node_id="n") is None


def test_volume_of_an_unknown_pod_has_no_object() -> None:
    """Without the pod's UID the object would have no owner, and stay for ever."""
    spec = _spec()
    attributes = {key: value for key, value in spec.attributes.items() if key != POD_UID_KEY}
    assert key_of(attrs.evolve(spec, attributes=attributes)) is None
