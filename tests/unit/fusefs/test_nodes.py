"""Which names there are, in both views, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from fakes.trees import TREES, kinds
from fakes.volumes import FakeVolume, volume_of
from fusefs.errors import NoSuchAttribute, NoSuchName, NotADirectoryNode, StaleGeneration
from fusefs.nodeids import LINK_LOCAL, PRIME_NAME, PRIME_NODE, ROOT_NODE, joined
from fusefs.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = {"a": b"one", "d/b": b"two"}


@pytest.fixture
def volume() -> Iterator[FakeVolume]:
    """Return a volume with a file and a directory with a file."""
    with volume_of(FILES) as made:
        yield made


def names(volume: FakeVolume, path: str = "", *, generation: int = 0) -> list[str]:
    """Return what a listing of a directory shows."""
    root = joined(generation, ROOT_NODE)
    local = (volume.node(path, root) if path else root) & 0xFFFFFF
    listing = volume.table.listing(generation or volume.table.shown, local, live=not generation)
    return [name.decode() for name, _ in listing]


@given(files=TREES)
def test_both_views_have_every_name(files: dict[str, bytes]) -> None:
    """Live and generation view show the same tree, under nodes of their own."""
    with volume_of(files) as made:
        for path in kinds(files):
            live, fixed = made.node(path), made.node(path, joined(1, ROOT_NODE))
            assert fixed == joined(1, live)
            if path in files:
                generation, entry = made.table.file(live)
                assert made.table.read(generation, entry.node, 0, 100) == files[path]


@pytest.mark.parametrize(
    ("parent", "name"),
    [
        pytest.param("", b"x", id="absent"),
        pytest.param("d", b"a", id="elsewhere"),
        pytest.param("", b"..x", id="reserved"),
        pytest.param("", b"..2", id="future-generation"),
        pytest.param("", b"..0", id="no-generation"),
        pytest.param("", b"..01", id="other-spelling"),
        pytest.param("", b"..\xc2\xb9", id="superscript-digit"),
        pytest.param("", b"..data_tmp", id="link-not-made"),
        pytest.param("", PRIME_NAME, id="priming-file"),
        pytest.param("d", b"..data", id="link-below"),
        pytest.param("", b"\xff", id="no-utf-8"),
        pytest.param("", b"..\xff", id="reserved-no-utf-8"),
    ],
)
def test_names_that_there_are_not(volume: FakeVolume, parent: str, name: bytes) -> None:
    """A name that no view has is absent, and a generation has one spelling only."""
    where = volume.node(parent) if parent else ROOT_NODE
    with pytest.raises(NoSuchName):
        volume.table.resolve(where, name)


def test_generation_view_has_no_reserved_names(volume: FakeVolume) -> None:
    """Inside a generation there is no ``..data`` and no generation."""
    root = volume.node("..1")
    for name in (b"..data", b"..1", b"x"):
        with pytest.raises(NoSuchName):
            volume.table.resolve(root, name)


@pytest.mark.parametrize("generation", [0, 1], ids=["live", "fixed"])
def test_files_have_no_names_in_them(volume: FakeVolume, generation: int) -> None:
    """Looking something up in a file is an error of its own."""
    node = joined(generation, volume.node("a"))
    with pytest.raises(NotADirectoryNode):
        volume.table.resolve(node, b"x")


def test_nodes_that_never_were_are_stale(volume: FakeVolume) -> None:
    """An id that nothing kept has is stale in every question."""
    table = volume.table
    for node in (4711, joined(1, 4711), joined(9, ROOT_NODE)):
        for ask in (table.attributes, table.file):
            with pytest.raises(StaleGeneration):
                ask(node)
    with pytest.raises(StaleGeneration):
        table.resolve(4711, b"x")


def test_directories_are_no_files(volume: FakeVolume) -> None:
    """A directory has no content to open or read."""
    node = volume.node("d")
    with pytest.raises(StaleGeneration):
        volume.table.file(node)
    with pytest.raises(StaleGeneration):
        volume.table.read(1, node, 0, 1)


def test_listing_of_the_live_root(volume: FakeVolume) -> None:
    """The root lists the link, the generation that it names, and the names, sorted."""
    assert names(volume) == ["..data", "..1", "a", "d"]
    volume.rotate({"a": b"x", "c": b""})
    assert names(volume) == ["..data", "..2", "a", "c"]
    assert names(volume, generation=1) == ["a", "d"]
    assert names(volume, "d", generation=1) == ["b"]


def test_old_generations_resolve_though_unlisted(volume: FakeVolume) -> None:
    """A path walk that stands between READLINK and LOOKUP still arrives."""
    volume.rotate({"a": b"x"})
    assert volume.node("..1/d/b") == joined(1, volume.table.resolve(volume.node("..1/d"), b"b"))
    assert volume.table.link_target(volume.node("..data")) == b"..2"


def test_only_links_have_a_target(volume: FakeVolume) -> None:
    """READLINK of anything else is an error."""
    for node in (ROOT_NODE, volume.node("a"), volume.node("..1")):
        with pytest.raises(NoSuchName):
            volume.table.link_target(node)


def test_priming_file_is_there_only_while_primed(volume: FakeVolume) -> None:
    """The hidden file can be found and is never listed."""
    volume.table.priming = True
    assert volume.table.resolve(ROOT_NODE, PRIME_NAME) == PRIME_NODE
    assert PRIME_NAME.decode() not in names(volume)
    volume.table.priming = False
    with pytest.raises(NoSuchName):
        volume.table.resolve(ROOT_NODE, PRIME_NAME)


def test_extended_attributes_say_what_is_read(volume: FakeVolume) -> None:
    """Files tell object, version and generation; directories the generation; links nothing."""
    table = volume.table
    assert table.extended_attributes(volume.node("a")) == {
        b"user.akv.generation": b"1",
        b"user.akv.object": b"",
        b"user.akv.version": b"",
    }
    assert table.extended_attributes(volume.node("..1/d")) == {b"user.akv.generation": b"1"}
    for node in (volume.node("..data"), PRIME_NODE):
        with pytest.raises(NoSuchAttribute):
            table.extended_attributes(node)


def test_removed_file_is_readable_while_kept(volume: FakeVolume) -> None:
    """A bind of a removed file reads the last content, as long as a generation has it."""
    node = volume.node("d/b")
    volume.table.count_lookup(volume.node("..1"))
    volume.rotate({"a": b"x"})
    assert volume.table.file(node)[0] == 1
    assert volume.table.attributes(node).size == 3
    assert volume.drop([1]) == []
    volume.table.count_lookup(joined(1, ROOT_NODE), -1)
    assert volume.drop([1]) == [1]
    with pytest.raises(StaleGeneration):
        volume.table.file(node)


def test_name_that_returns_has_its_old_node(volume: FakeVolume) -> None:
    """A bind of a file that was removed and comes back is live again."""
    node = volume.node("d/b")
    volume.rotate({"a": b"x"})
    volume.rotate({"a": b"x", "d/b": b"again"})
    assert volume.node("d/b") == node
    generation, entry = volume.table.file(node)
    assert volume.table.read(generation, entry.node, 0, 10) == b"again"


def test_current_generation_cannot_be_dropped(volume: FakeVolume) -> None:
    """Neither asked nor forced is the current generation let go of, nor one that is unknown."""
    assert volume.drop([1, 7]) == []
    assert volume.drop([1, 7], forced=True) == []
    assert volume.node("a")


def test_forced_drop_makes_handles_stale(volume: FakeVolume) -> None:
    """Beyond the budget a reader gets an error, never another generation's bytes."""
    node = volume.node("a")
    volume.table.opened(1)
    volume.rotate({"a": b"uno"})
    assert volume.drop([1]) == []
    assert volume.table.read(1, node, 0, 9) == b"one"
    assert volume.drop([1], forced=True) == [1]
    with pytest.raises(StaleGeneration):
        volume.table.read(1, node, 0, 9)
    assert 1 not in volume.in_use()


def test_look_ups_of_live_nodes_keep_nothing(volume: FakeVolume) -> None:
    """Live nodes belong to no generation: knowing one keeps none."""
    volume.table.lookup(ROOT_NODE, b"a")
    assert volume.in_use() == set()
    volume.table.lookup(ROOT_NODE, b"..data")
    volume.table.lookup(ROOT_NODE, b"..1")
    assert volume.in_use() == {1}


def test_progress_is_not_taken_back(volume: FakeVolume) -> None:
    """A step that arrives again does not undo those after it."""
    for step in volume.swap({"b": b""}).steps:
        volume.ask(step)
    for _ in range(2):
        volume.table.advance(1)
        assert volume.table.transition is not None
        assert volume.table.transition.done == 4
        volume.restart()


def test_paths_are_of_live_directories(volume: FakeVolume) -> None:
    """A plan names live paths: a directory of a generation has none."""
    assert volume.table.path_of(volume.node("d"), b"b") == "d/b"
    assert volume.table.path_of(ROOT_NODE, b"\xff") == "\ufffd"
    with pytest.raises(NoSuchName):
        volume.table.path_of(volume.node("..1"), b"a")
    with pytest.raises(NotADirectoryNode):
        volume.table.path_of(volume.node("a"), b"a")


def test_totals_are_of_the_current_generation(volume: FakeVolume) -> None:
    """What statfs shows is the size of what is shown, not of what is kept."""
    assert volume.table.totals() == (6, 2)
    volume.rotate({"a": b"12345"})
    assert volume.table.totals() == (5, 1)


def test_bound_file_keeps_its_last_generation(volume: FakeVolume) -> None:
    """A removed file that a pod still has bound is shown from the last generation that had it."""
    node = volume.node("d/b")
    volume.bound.add(node)
    volume.rotate({"a": b"x"})
    assert volume.drop([1]) == []
    assert volume.table.file(node)[0] == 1
    volume.rotate({"a": b"x", "d/b": b"again"})
    assert volume.drop([1, 2]) == [1, 2]
    assert volume.table.file(node)[0] == 3


def test_bound_file_shows_its_last_content(volume: FakeVolume) -> None:
    """Of several generations that have a removed file, the newest answers."""
    node = volume.node("d/b")
    volume.rotate({"a": b"x", "d/b": b"other"})
    volume.rotate({"a": b"x"})
    generation, entry = volume.table.file(node)
    assert generation == 2
    assert volume.table.read(generation, entry.node, 0, 9) == b"other"
    assert volume.table.attributes(node).size == 5


def test_bound_file_goes_by_force(volume: FakeVolume) -> None:
    """Beyond the budget even a bound file gets an error."""
    node = volume.node("d/b")
    volume.bound.add(node)
    volume.rotate({"a": b"x"})
    assert volume.drop([1], forced=True) == [1]
    with pytest.raises(StaleGeneration):
        volume.table.file(node)


def test_release_counts_at_the_next_request(volume: FakeVolume) -> None:
    """A worker killed before its answer is asked again: the release must not count twice."""
    for _ in range(2):
        volume.table.opened(1)
    volume.table.released(1)
    volume.restart()
    volume.table.released(1)
    assert volume.in_use() == {1}
    volume.table.released(1)
    assert volume.in_use() == set()


def test_live_nodes_are_those_of_all_kept(volume: FakeVolume) -> None:
    """A successor invalidates every live node that the kernel may know."""
    nodes = {ROOT_NODE, volume.node("a"), volume.node("d"), volume.node("d/b")}
    volume.rotate({"c": b""})
    assert set(volume.table.live_nodes()) == {*nodes, volume.node("c")}


def test_broken_invariants_are_reported(volume: FakeVolume) -> None:
    """The check that the state machines rely on finds what it is there for."""
    volume.table.check_invariants()
    volume.swap({"a": b"x"})
    volume.table.check_invariants()
    kept = volume.table.generations.pop(1)
    with pytest.raises(AssertionError, match="generation 1 of the plan"):
        volume.table.check_invariants()
    volume.table.generations[1] = kept
    volume.table.begin(3, Plan(generation=3, previous=0))
    with pytest.raises(AssertionError, match="current generation 3"):
        volume.table.check_invariants()


def test_link_of_a_generation_is_its_own(volume: FakeVolume) -> None:
    """``..data`` is another node after each rotation: the kernel may cache where it points."""
    assert volume.node("..data") == volume.table.data_link(1) == joined(1, LINK_LOCAL)
    volume.rotate({"a": b"x"})
    assert volume.node("..data") == volume.table.data_link(2)
