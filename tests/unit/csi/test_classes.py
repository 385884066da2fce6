"""Classes from a directory of YAML files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from csi.classes import ClassDirectory
from csi.errors import ClassesUnavailable, ClassNotFound, ClassUnusable
from fakes.nodeserver import write_class

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = """\
apiVersion: secrets-store.csi.x-k8s.io/{version}
kind: SecretProviderClass
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{provider: azure, parameters: {{a: {value}}}}}
"""


def _document(
    name: str = "vault", namespace: str = "shop", value: str = "b", version: str = "v1"
) -> str:
    return DOCUMENT.format(name=name, namespace=namespace, value=value, version=version)


async def test_class_is_found_by_namespace_and_name(tmp_path: Path) -> None:
    """The same name in another namespace is another class."""
    write_class(tmp_path, parameters="{a: shop}")
    write_class(tmp_path, namespace="bank", parameters="{a: bank}")
    classes = ClassDirectory(tmp_path / "classes")
    assert (await classes.get("shop", "vault")).parameters == {"a": "shop"}
    assert (await classes.get("bank", "vault")).parameters == {"a": "bank"}
    with pytest.raises(ClassNotFound):
        await classes.get("default", "vault")


async def test_edited_file_counts_at_the_next_look(tmp_path: Path) -> None:
    """A changed, a new and a removed file are noticed without a restart."""
    path = write_class(tmp_path, parameters="{a: first}")
    classes = ClassDirectory(tmp_path / "classes")
    await classes.get("shop", "vault")
    write_class(tmp_path, parameters="{a: secnd}")  # the same size, a moment later
    assert (await classes.get("shop", "vault")).parameters == {"a": "secnd"}
    write_class(tmp_path, "other")
    assert (await classes.get("shop", "other")).provider == "azure"
    path.unlink()
    with pytest.raises(ClassNotFound):
        await classes.get("shop", "vault")


async def test_one_file_may_hold_several_documents(tmp_path: Path) -> None:
    """Other kinds and empty documents between classes are passed over."""
    foreign = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\n"
    text = "---\n".join((_document("one"), "", foreign, _document("two", version="v1alpha1")))
    (tmp_path / "all.yml").write_text(text)
    classes = ClassDirectory(tmp_path)
    for name in ("one", "two"):
        assert (await classes.get("shop", name)).name == name


async def test_namespace_defaults_like_kubectl(tmp_path: Path) -> None:
    """A class without a namespace is in "default"."""
    (tmp_path / "a.json").write_text(
        '{"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",'
        ' "metadata": {"name": "vault"}, "spec": {"provider": "azure"}}'
    )
    found = await ClassDirectory(tmp_path).get("default", "vault")
    assert (found.provider, found.parameters) == ("azure", {})


async def test_unparsable_file_keeps_its_last_content(tmp_path: Path) -> None:
    """An editor caught half way does not take a class away; the next good content counts."""
    path = tmp_path / "a.yaml"
    path.write_text(_document(value="good"))
    classes = ClassDirectory(tmp_path)
    await classes.get("shop", "vault")
    for bad in ("{", "\xff", "[1, 2]"):
        path.write_bytes(bad.encode("latin-1"))
        assert (await classes.get("shop", "vault")).parameters == {"a": "good"}
    path.write_text(_document(value="better"))
    assert (await classes.get("shop", "vault")).parameters == {"a": "better"}


async def test_wrong_type_is_told_with_its_field(tmp_path: Path) -> None:
    """A number that should be a string is the class's fault, each time it is asked for."""
    (tmp_path / "a.yaml").write_text(_document(value="12"))
    classes = ClassDirectory(tmp_path)
    for _ in range(2):
        with pytest.raises(ClassUnusable, match=r"spec\.parameters.*in quotes"):
            await classes.get("shop", "vault")


async def test_first_file_wins_and_hidden_ones_do_not_count(tmp_path: Path) -> None:
    """Of two files with one class the first by name counts; hidden and other files never."""
    (tmp_path / "b.yaml").write_text(_document(value="second"))
    (tmp_path / "a.yaml").write_text(_document(value="first"))
    (tmp_path / ".0.yaml").write_text(_document(value="hidden"))
    (tmp_path / "0.txt").write_text(_document(value="text"))
    assert (await ClassDirectory(tmp_path).get("shop", "vault")).parameters == {"a": "first"}


async def test_links_count_as_what_they_lead_to(tmp_path: Path) -> None:
    """A mounted ConfigMap shows its files through links that are swung."""
    directory = tmp_path / "classes"
    directory.mkdir()
    for value in ("one", "two"):
        (tmp_path / value).mkdir()
        (tmp_path / value / "a.yaml").write_text(_document(value=value))
    (directory / "..data").symlink_to(tmp_path / "one")
    (directory / "a.yaml").symlink_to("..data/a.yaml")
    (directory / "dangling.yaml").symlink_to("..data/missing.yaml")
    classes = ClassDirectory(directory)
    assert (await classes.get("shop", "vault")).parameters == {"a": "one"}
    (tmp_path / "next").symlink_to(tmp_path / "two")
    os.replace(tmp_path / "next", directory / "..data")  # noqa: PTH105 - swings a link
    assert (await classes.get("shop", "vault")).parameters == {"a": "two"}


async def test_missing_directory_is_the_operators(tmp_path: Path) -> None:
    """A directory that cannot be read names the flag and is worth another try."""
    with pytest.raises(ClassesUnavailable, match="--class-dir"):
        await ClassDirectory(tmp_path / "missing").get("shop", "vault")
