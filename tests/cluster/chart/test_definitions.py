"""The CustomResourceDefinitions, field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cluster.chart.rendering import Document, Helm

GROUP: Final = "secrets-store.csi.x-k8s.io"


def schema_of(definition: Document, version: str) -> Document:
    """Return the schema of one version, without its descriptions and what every object has."""
    [found] = [one for one in definition["spec"]["versions"] if one["name"] == version]

    def bare(value: Any) -> Any:  # noqa: ANN401 - any part of a document
        if not isinstance(value, dict):
            return value
        return {
            key: bare(part)
            for key, part in value.items()
            if key != "description" or isinstance(part, dict)
        }

    properties: Document = bare(found["schema"]["openAPIV3Schema"])["properties"]
    return {key: properties[key] for key in properties.keys() - {"apiVersion", "kind", "metadata"}}


def record(**properties: object) -> Document:
    """Return the schema of an object with these properties."""
    return {"type": "object", "properties": properties}


TEXT: Final = {"type": "string"}
TEXTS: Final = {"type": "object", "additionalProperties": TEXT}
CLASS_SPEC: Final = record(
    provider=TEXT,
    parameters=TEXTS,
    secretObjects={
        "type": "array",
        "items": record(
            secretName=TEXT,
            type=TEXT,
            labels=TEXTS,
            annotations=TEXTS,
            data={"type": "array", "items": record(objectName=TEXT, key=TEXT)},
        ),
    },
)
BY_POD: Final = record(byPod={"type": "array", "items": record(id=TEXT, namespace=TEXT)})
POD_STATUS: Final = record(
    podName=TEXT,
    secretProviderClassName=TEXT,
    mounted={"type": "boolean"},
    targetPath=TEXT,
    objects={"type": "array", "items": record(id=TEXT, version=TEXT)},
)


def test_definitions_are_the_references(helm: Helm) -> None:
    """Existing classes and pod statuses of either version mean what they meant."""
    objects = helm.render()
    classes = objects["CustomResourceDefinition", f"secretproviderclasses.{GROUP}"]
    assert schema_of(classes, "v1") == {"spec": CLASS_SPEC, "status": {"type": "object"}}
    assert schema_of(classes, "v1alpha1") == {"spec": CLASS_SPEC, "status": BY_POD}
    statuses = objects["CustomResourceDefinition", f"secretproviderclasspodstatuses.{GROUP}"]
    for version in ("v1", "v1alpha1"):
        assert schema_of(statuses, version) == {"status": POD_STATUS}
    for definition in (classes, statuses):
        assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert definition["spec"]["scope"] == "Namespaced"
        served = {
            one["name"]: (one["served"], one["storage"], one.get("deprecated", False))
            for one in definition["spec"]["versions"]
        }
        assert served == {"v1": (True, True, False), "v1alpha1": (True, False, True)}
    assert not [
        kind
        for kind, _ in helm.render({"linux": {"crds": {"enabled": False}}})
        if kind == "CustomResourceDefinition"
    ]
