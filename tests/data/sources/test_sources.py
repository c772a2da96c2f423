"""Datasets before they are packed: which files belong to them, and what their names say."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lupctl.core.choices import Dataset, Layout
from lupctl.core.data.catalog.datasets import catalog_entry, find_entry
from lupctl.core.data.sources.build import build_source, build_synthetic
from lupctl.core.data.sources.digest import source_digest
from lupctl.core.data.sources.guess import guess_layout
from lupctl.core.data.sources.layouts.images import ImagesSource
from lupctl.core.data.sources.layouts.market1501 import Market1501Source
from lupctl.core.data.sources.layouts.persons import PersonsSource
from lupctl.core.data.sources.records import Source
from lupctl.core.errors import DataError


def place(root: Path, *names: str) -> Path:
    """Empty files; sources read names only."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def table(source: Source) -> list[tuple[str, int, int, int]]:
    found = source.list_images()
    columns = (found.name, found.person.tolist(), found.camera.tolist(), found.role.tolist())
    return list(zip(*columns, strict=True))


# Market-1501


def test_market_names_tell_person_camera_and_role(market_folder: Path) -> None:
    found = table(Market1501Source(market_folder))
    assert found[0] == ("bounding_box_train/0002_c1s1_000051_01.jpg", 2, 1, 1)
    assert found[8:10] == [("query/0003_c1s1_000101_00.jpg", 3, 1, 2), ("query/0005_c1s1_000101_00.jpg", 5, 1, 2)]
    assert ("bounding_box_test/-1_c1s1_000226_02.jpg", -1, 1, 3) in found, "junk is kept, as published"
    assert ("bounding_box_test/0000_c2s1_000201_03.jpg", 0, 2, 3) in found, "and so are distractors"
    assert len(found) == 16
    assert [(role, name) for name, _, _, role in found] == sorted((role, name) for name, _, _, role in found)


def test_columns_have_the_types_of_samples(market_folder: Path) -> None:
    found = Market1501Source(market_folder).list_images()
    assert [column.dtype for column in (found.person, found.camera, found.role)] == [np.int64, np.int16, np.uint8]


def test_market_parses_the_file_name_and_not_the_path(tmp_path: Path, market_folder: Path) -> None:
    """A folder such as 12_c3 gives every image person 12 where the whole path is searched."""
    misleading = tmp_path / "12_c3s1"
    market_folder.rename(misleading)
    assert table(Market1501Source(misleading))[0][1:] == (2, 1, 1)


def test_market_one_level_below(tmp_path: Path, market_folder: Path) -> None:
    unpacked = tmp_path / "raw" / "Market-1501-v15.09.15"
    unpacked.parent.mkdir()
    market_folder.rename(unpacked)
    source = Market1501Source(unpacked.parent)
    assert source.root == unpacked
    assert source.list_images().name[0] == "bounding_box_train/0002_c1s1_000051_01.jpg"


def test_two_datasets_below_are_not_chosen_between(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for folder in ("bounding_box_train", "query", "bounding_box_test"):
            (tmp_path / name / folder).mkdir(parents=True)
    with pytest.raises(DataError, match="contains 2 datasets"):
        Market1501Source(tmp_path)


def test_market_ignores_and_counts_what_is_no_image(market_folder: Path) -> None:
    place(market_folder, "bounding_box_train/Thumbs.db", "query/._0003_c1s1_000101_00.jpg", "gt_bbox/0001_c1s1.jpg")
    source = Market1501Source(market_folder)
    assert len(source.list_images()) == 16
    assert source.facts["ignored"] == 2, "gt_bbox is no part of the dataset and is not looked into"


def test_market_reads_doubled_endings_and_relatives(market_folder: Path) -> None:
    place(market_folder, "query/1466_c3s3_060553_00.jpg.jpg", "query/0001_c8_f0046662.JPG", "query/0000_c12_0036.png")
    found = {name: (person, camera) for name, person, camera, _ in table(Market1501Source(market_folder))}
    assert found["query/1466_c3s3_060553_00.jpg.jpg"] == (1466, 3)
    assert found["query/0001_c8_f0046662.JPG"] == (1, 8)
    assert found["query/0000_c12_0036.png"] == (0, 12)


def test_names_that_do_not_parse(market_folder: Path) -> None:
    place(market_folder, *(f"query/{letter}.jpg" for letter in "gfedcba"), "query/-2_c1s1.jpg")
    with pytest.raises(DataError, match="8 of 24 file names contain no person and camera") as caught:
        Market1501Source(market_folder).list_images()
    assert "query/-2_c1s1.jpg, query/a.jpg, query/b.jpg, query/c.jpg, query/d.jpg, ..." in caught.value.message
    assert "query/e.jpg" not in caught.value.message, "five are enough"
    assert "--layout" in caught.value.hint


def test_market_without_its_folders(tmp_path: Path) -> None:
    place(tmp_path / "half", "bounding_box_train/0002_c1s1_000051_01.jpg")
    with pytest.raises(DataError, match="bounding_box_train, query, bounding_box_test; found bounding_box_train"):
        Market1501Source(tmp_path / "half")
    with pytest.raises(DataError, match="there is no such folder"):
        Market1501Source(tmp_path / "nothing")


# trees of images


def test_any_tree(tmp_path: Path) -> None:
    place(tmp_path, "b/x.JPG", "b/deep/er/y.png", "a.webp", "notes.txt", ".hidden.jpg", "b/z.jpeg.part")
    source = ImagesSource(tmp_path, dataset="tree")
    assert table(source) == [(name, -1, -1, 0) for name in ("a.webp", "b/deep/er/y.png", "b/x.JPG")]
    assert source.facts["ignored"] == 3


def test_links_are_followed_once(tmp_path: Path) -> None:
    place(tmp_path / "elsewhere", "x.jpg")
    place(tmp_path / "tree", "y.jpg")
    (tmp_path / "tree" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "tree")
    assert ImagesSource(tmp_path / "tree", dataset="tree").list_images().name == ["linked/x.jpg", "y.jpg"]


PARTS = st.sampled_from(["a", "b", "a.jpg", "a b", "a-", "a0", "ä", "A", "zz"])


@settings(max_examples=60, deadline=None)
@given(paths=st.sets(st.tuples(PARTS, PARTS, PARTS) | st.tuples(PARTS, PARTS) | st.tuples(PARTS), min_size=1))
def test_a_tree_comes_in_the_order_of_its_names(
    tmp_path_factory: pytest.TempPathFactory, paths: set[tuple[str, ...]]
) -> None:
    """`a.jpg` < `a/1.jpg` < `a0.jpg` in the order of names; in that of folders `a` stands before all."""
    root = tmp_path_factory.mktemp("tree")
    names = ["/".join((*path[:-1], f"{path[-1]}.png")) for path in paths]
    place(root, *names)
    assert ImagesSource(root, dataset="tree").list_images().name == sorted(names)


def test_a_folder_of_very_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More names than are sorted as strings at once."""
    monkeypatch.setattr("lupctl.core.system.strings.BLOCK_NAMES", 50)
    names = [f"{row:04d}.jpg" for row in range(1009)]
    place(tmp_path, *names)
    assert ImagesSource(tmp_path, dataset="tree").list_images().name == names


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"contains no image \(0 other files\)"):
        ImagesSource(tmp_path, dataset="tree").list_images()
    place(tmp_path, "readme.txt")
    with pytest.raises(DataError, match=r"contains no image \(1 other files\)"):
        ImagesSource(tmp_path, dataset="tree").list_images()
    with pytest.raises(DataError, match="there is no such folder"):
        ImagesSource(tmp_path / "nothing", dataset="tree").list_images()


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    try:
        (tmp_path / "caf\udce9.jpg").write_bytes(b"")
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    with pytest.raises(DataError, match="1 file names are not UTF-8"):
        ImagesSource(tmp_path, dataset="tree").list_images()


# a folder per person


def test_numbered_persons_keep_their_numbers(tmp_path: Path) -> None:
    place(tmp_path, "0012/a.jpg", "7/a.jpg", "7/b.jpg")
    assert table(PersonsSource(tmp_path, dataset="p")) == [
        ("0012/a.jpg", 12, -1, 1),
        ("7/a.jpg", 7, -1, 1),
        ("7/b.jpg", 7, -1, 1),
    ]


def test_named_persons_are_numbered_in_sorted_order_over_all_roles(tmp_path: Path) -> None:
    place(tmp_path, "train/zoe/1.jpg", "train/7/1.jpg", "query/ben/1.jpg", "gallery/ben/2.jpg", "gallery/amy/1.jpg")
    assert table(PersonsSource(tmp_path, dataset="p")) == [
        ("train/7/1.jpg", 1, -1, 1),
        ("train/zoe/1.jpg", 4, -1, 1),
        ("query/ben/1.jpg", 3, -1, 2),
        ("gallery/amy/1.jpg", 2, -1, 3),
        ("gallery/ben/2.jpg", 3, -1, 3),
    ]


@pytest.mark.parametrize(
    ("rule", "names", "cameras"),
    [
        ("none", ["1/c3_a.jpg"], [-1]),
        ("market", ["1/0001_c12s1_000051.jpg", "1/x_c3.jpg"], [12, 3]),
        ("prefix", ["1/3_c9.jpg", "1/c4_a.jpg"], [3, 4]),
        ("folder", ["1/2/c9_a.jpg", "1/Cam_05/a.jpg", "1/c7/a.jpg"], [2, 5, 7]),
    ],
)
def test_camera_rules(tmp_path: Path, rule: str, names: list[str], cameras: list[int]) -> None:
    place(tmp_path, *names)
    found = table(PersonsSource(tmp_path, dataset="p", cameras=rule))  # type: ignore[arg-type]
    assert [(name, camera) for name, _, camera, _ in found] == list(zip(names, cameras, strict=True))


@pytest.mark.parametrize("rule", ["market", "prefix", "folder"])
def test_names_without_a_camera(tmp_path: Path, rule: str) -> None:
    place(tmp_path, "1/holiday.jpg", "2/holiday.jpg")
    with pytest.raises(
        DataError, match=rf"2 names contain no camera.* \(--cameras {rule}\): 1/holiday\.jpg, 2/holiday"
    ):
        PersonsSource(tmp_path, dataset="p", cameras=rule).list_images()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["stray.jpg", "1/a.jpg"], r"1 names are in no person's folder: stray\.jpg"),
        (["train/stray.jpg", "train/1/a.jpg"], r"are in no person's folder: train/stray\.jpg"),
        (["train/1/a.jpg", "extra/1/a.jpg"], "are next to the folders train, query and gallery: extra"),
        (["01/a.jpg", "1/a.jpg", "2/a.jpg"], "2 names are the same number in different spellings: 01, 1"),
    ],
)
def test_folders_of_persons_that_are_none(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PersonsSource(place(tmp_path, *names), dataset="p").list_images()


# catalogue, layouts, change


def test_published_counts_add_up() -> None:
    """Zheng et al. 2015; 15,913 gallery images are left when junk is dropped, 13,115 without distractors."""
    market = catalog_entry("market1501")
    assert market.images["train"] == 12_936
    assert market.images["gallery"] - market.junk == 15_913
    assert market.images["gallery"] - market.junk - market.distractors == 13_115
    assert sum(market.images.values()) == 36_036


def test_every_dataset_has_an_entry_and_terms() -> None:
    for name in get_args(Dataset):
        assert catalog_entry(name).name == name
        assert catalog_entry(name).terms
    assert find_entry("market") is None


@pytest.mark.parametrize("layout", ["market1501", "images", "persons"])
def test_folder_layouts_build_a_source(tmp_path: Path, market_folder: Path, layout: Layout) -> None:
    if layout == "persons":
        market_folder = place(tmp_path / "persons", *(f"{person}/a.jpg" for person in range(16)))
    source = build_source(layout, market_folder, dataset="market1501")
    assert source.facts["layout"] == layout
    assert source.facts["terms"] == "academic research only (Zheng et al. 2015)"
    assert len(source.list_images()) == 16


def test_the_layout_is_guessed_from_name_and_content(tmp_path: Path, market_folder: Path) -> None:
    assert guess_layout(market_folder, dataset="mine").layout == "market1501"
    assert guess_layout(market_folder.parent, dataset="mine").layout == "market1501", "one level below"
    roles = place(tmp_path / "roles", "train/1/a.jpg", "query/2/a.jpg")
    assert guess_layout(roles, dataset="mine").layout == "persons"
    plain = place(tmp_path / "plain", "a.jpg", "b.jpg")
    assert guess_layout(plain, dataset="mine").layout == "images"
    assert guess_layout(plain, dataset="market1501").layout == "market1501", "the name decides"
    with pytest.raises(DataError, match="no such folder"):
        guess_layout(tmp_path / "nothing", dataset="mine")


def test_the_digest_tells_a_changed_source(tmp_path: Path) -> None:
    place(tmp_path / "a", "x.jpg", "y.jpg")

    def digest(root: Path) -> str:
        source = ImagesSource(root, dataset="d")
        return source_digest(source, source.list_images())[0]

    first = digest(tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest(tmp_path / "b") == first, "another place and another readme change nothing"
    (tmp_path / "b" / "y.jpg").write_bytes(b"more")
    second = digest(tmp_path / "b")
    place(tmp_path / "b", "z.jpg")
    assert len({first, second, digest(tmp_path / "b")}) == 3


def test_the_digest_tells_other_labels_and_other_drawings(tmp_path: Path) -> None:
    root = place(tmp_path, "1/c1_a.jpg")
    sources: list[Source] = [
        PersonsSource(root, dataset="d", cameras="none"),
        PersonsSource(root, dataset="d", cameras="prefix"),
        ImagesSource(root, dataset="d"),
        build_synthetic(seed=0),
        build_synthetic(seed=1),
    ]
    digests = [source_digest(source, source.list_images()) for source in sources]
    assert len({digest for digest, _ in digests}) == len(sources)
    assert [num_bytes for _, num_bytes in digests] == [0, 0, 0, None, None]


@pytest.mark.real
def test_real_market_names(real_data: Path) -> None:
    found = Market1501Source(real_data / "market1501-mini").list_images()
    counts = [int((found.role == role).sum()) for role in (1, 2, 3)]
    persons = [len(np.unique(found.person[found.role == role])) for role in (1, 2, 3)]
    assert (counts, persons) == ([1107, 132, 515], [60, 37, 40])
    assert np.unique(found.camera).tolist() == [1, 2, 3, 4, 5, 6]
