"""Dividing labelled images into train, query and gallery."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lupctl.core.choices import ROLE_NAMES
from lupctl.core.data.sources.digest import source_digest
from lupctl.core.data.sources.layouts.persons import PersonsSource
from lupctl.core.data.sources.splits.divide import divide
from lupctl.core.data.sources.splits.draw import draw_persons, draw_queries
from lupctl.core.data.sources.splits.rule import parse_split
from lupctl.core.data.sources.splits.source import SplitSource
from lupctl.core.errors import DataError, LupError, UsageError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.split import PackSplit, describe_split
from lupctl.core.ranking.retrieval.answerable import check_answerable
from lupctl.core.system.strings import build_column

# A person, and how many images each of the cameras 1, 2, … has of them.
Crowd = list[list[int]]
crowds = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=9)
# Enough persons to train on some and to test others.
many = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=4), min_size=6, max_size=12)
seeds = st.integers(0, 2**40)
shares = st.integers(34, 66).map(lambda percent: f"0.{percent:02d}")


def photograph(crowd: Crowd, *, has_cameras: bool = True) -> Samples:
    """Images of persons 1, 2, …, all in train."""
    rows = [
        (person, camera if has_cameras else -1, f"{person}/c{camera}_{shot}.jpg")
        for person, counts in enumerate(crowd, start=1)
        for camera, count in enumerate(counts, start=1)
        for shot in range(count)
    ]
    return Samples(
        person=np.array([row[0] for row in rows], np.int64),
        camera=np.array([row[1] for row in rows], np.int16),
        role=np.ones(len(rows), np.uint8),
        name=build_column(row[2] for row in rows),
    )


def roles_by_name(samples: Samples, rule: str, *, seed: int = 0) -> tuple[dict[str, str], PackSplit]:
    role, split = divide(samples, parse_split(rule, seed=seed), dataset="crowd")
    return {name: ROLE_NAMES[code] for name, code in zip(samples.name, role.tolist(), strict=True)}, split


def with_roles(samples: Samples, roles: dict[str, str]) -> Samples:
    code = {str(name): number for number, name in ROLE_NAMES.items()}
    role = np.array([code[roles[name]] for name in samples.name], np.uint8)
    return Samples(person=samples.person, camera=samples.camera, role=role, name=samples.name)


def persons_with(samples: Samples, roles: dict[str, str], *wanted: str) -> set[int]:
    named = zip(samples.name, samples.person.tolist(), strict=True)
    return {person for name, person in named if roles[name] in wanted}


# Queries


@given(crowds, seeds, st.booleans())
def test_queries_are_answered_and_as_many_as_can_be(crowd: Crowd, seed: int, has_cameras: bool) -> None:
    samples = photograph(crowd, has_cameras=has_cameras)
    drop = has_cameras
    is_query = draw_queries(
        samples.name, samples.person, samples.camera, seed=seed, same_camera="drop" if drop else "keep"
    )
    queries, gallery = samples.select(is_query), samples.select(~is_query)
    seen_by = defaultdict(set)
    for person, camera in zip(gallery.person.tolist(), gallery.camera.tolist(), strict=True):
        seen_by[person].add(camera)
    for person, camera in zip(queries.person.tolist(), queries.camera.tolist(), strict=True):
        assert seen_by[person] - ({camera} if drop else set()), "every query has a right answer"
    asked = Counter(queries.person.tolist())
    for person, counts in enumerate(crowd, start=1):
        seen = [count for count in counts if count]
        if not drop:
            assert asked[person] == (sum(seen) >= 2), "one query for each person with two images"
        elif len(seen) < 2:
            assert asked[person] == 0, "one camera answers none of its own questions"
        else:
            kept = sum(count >= 2 for count in seen) < 2 and 1 in seen
            assert asked[person] == len(seen) - kept, "one for each camera, except where an answer has to stay"
    pairs = Counter(zip(queries.person.tolist(), queries.camera.tolist(), strict=True))
    assert all(count == 1 for count in pairs.values())


def test_the_order_of_the_draw_is_part_of_the_format() -> None:
    """As the manual gives it, with a seed of 7; no version may draw anything else."""

    def ranked(kind: str, keys: Iterable[str]) -> list[str]:
        return sorted(keys, key=lambda key: hashlib.blake2b(f"7 split {kind} {key}".encode(), digest_size=16).digest())

    def in_train(rule: str) -> set[str]:
        return {name for name, role in roles_by_name(samples, rule, seed=7)[0].items() if role == "train"}

    samples = photograph([[2, 3, 2, 2, 2]] * 5)
    names = list(samples.name)
    persons, cameras = ranked("person", "12345")[:2], ranked("camera", "12345")[:2]
    assert in_train("persons:0.4") == {name for name in names if name[0] in persons}
    assert in_train("cameras:0.4") == {name for name in names if name[3] in cameras}
    assert in_train("images:0.4") == {
        name for one in "12345" for name in ranked("image", [name for name in names if name[0] == one])[:4]
    }
    roles, _ = roles_by_name(samples, "persons:0.4", seed=7)
    for one in set("12345") - set(persons):
        for camera in "12345":
            shots = ranked("query", [name for name in names if (name[0], name[3]) == (one, camera)])
            assert [roles[name] for name in shots] == ["query"] + ["gallery"] * (len(shots) - 1)


# Persons, images, cameras


@settings(max_examples=60)
@given(many, shares, seeds, st.booleans(), st.randoms())
def test_persons_are_apart_and_the_order_of_the_input_does_not_matter(
    crowd: Crowd, share: str, seed: int, has_cameras: bool, chance: Random
) -> None:
    samples = photograph(crowd, has_cameras=has_cameras)
    try:
        roles, split = roles_by_name(samples, f"persons:{share}", seed=seed)
    except LupError:
        assume(False)
    persons = {person for person, counts in enumerate(crowd, start=1) if sum(counts)}
    train, test = persons_with(samples, roles, "train"), persons_with(samples, roles, "query", "gallery")
    assert train | test == persons
    assert not train & test
    assert len(train) == int(share[2:]) * len(persons) // 100
    assert split.persons["train"] == len(train)
    assert sum(split.images.values()) == len(samples)
    keep = split.protocol == "same-camera-allowed"
    counts = check_answerable(with_roles(samples, roles), same_camera="keep" if keep else "drop")
    assert counts.valid == counts.queries == split.images["query"]
    assert split.no_query == len(test) - counts.persons
    order = list(range(len(samples)))
    chance.shuffle(order)
    assert roles_by_name(samples.select(order), f"persons:{share}", seed=seed)[0] == roles


def test_seeds_draw_other_persons_and_larger_shares_contain_smaller_ones() -> None:
    samples = photograph([[2, 2]] * 40)

    def trained(rule: str, seed: int = 0) -> set[int]:
        return persons_with(samples, roles_by_name(samples, rule, seed=seed)[0], "train")

    assert len({frozenset(trained("persons:0.5", seed)) for seed in range(20)}) == 20
    assert trained("persons:0.1") < trained("persons:0.5") < trained("persons:0.9")
    assert len(trained("persons:0.29")) == 11, "int(40 * 0.29)"


@given(many, shares, seeds)
def test_each_persons_images_are_divided(crowd: Crowd, share: str, seed: int) -> None:
    samples = photograph(crowd)
    try:
        roles, split = roles_by_name(samples, f"images:{share}", seed=seed)
    except LupError:
        assume(False)
    trained = Counter(name.split("/")[0] for name, role in roles.items() if role == "train")
    for person, seen in enumerate(crowd, start=1):
        assert trained[str(person)] == max(int(share[2:]) * sum(seen) // 100, 1)
    assert split.closed_set
    assert split.shared == len(persons_with(samples, roles, "query", "gallery"))
    assert split.persons["train"] == len(crowd)
    keep = split.protocol == "same-camera-allowed"
    counts = check_answerable(with_roles(samples, roles), same_camera="keep" if keep else "drop")
    assert counts.valid == counts.queries == split.images["query"]


def test_cameras_are_named_or_drawn() -> None:
    samples = photograph([[2, 2, 2, 2]] * 3)
    roles, split = roles_by_name(samples, "cameras:1,3")
    assert {name.split("/")[1][:2] for name, role in roles.items() if role == "train"} == {"c1", "c3"}
    assert (split.images["query"], split.protocol, split.closed_set) == (6, "market1501", True)
    for seed in range(5):
        roles, _ = roles_by_name(samples, "cameras:0.5", seed=seed)
        assert len({name.split("/")[1][:2] for name, role in roles.items() if role == "train"}) == 2
    _, split = roles_by_name(samples, "cameras:1,2,3")
    assert (split.images["query"], split.protocol) == (3, "same-camera-allowed"), "one camera is left to test"


def test_nobody_on_two_cameras_is_scored_with_matches_from_the_same_one() -> None:
    """Also where there are many cameras, each with its own persons."""
    for samples in (
        photograph([[4]] * 6), photograph([[2, 2]] * 6, has_cameras=False), photograph([[3], [0, 3], [3], [0, 3]])
    ):  # fmt: skip
        _, split = roles_by_name(samples, "persons:0.5")
        assert split.protocol == "same-camera-allowed"
        assert split.images["query"] == split.persons["query"] == split.persons["gallery"]
    assert "nobody is seen by two cameras" in "\n".join(describe_split(split))


def test_persons_whom_one_camera_saw_are_distractors_of_known_identity() -> None:
    samples = photograph([[2, 2]] * 6 + [[3]] * 6)
    roles, split = roles_by_name(samples, "persons:0.5")
    alone = persons_with(samples, roles, "gallery") - persons_with(samples, roles, "query")
    assert alone == {person for person in persons_with(samples, roles, "gallery") if person > 6}
    assert split.no_query == len(alone) > 0
    assert split.no_query > 1
    line = f"not searched for, only in the gallery: {len(alone)} persons, as one camera alone shows them there"
    assert line in describe_split(split)


def test_junk_and_distractors_and_unlabelled_images() -> None:
    known = photograph([[2, 2]] * 4)
    samples = Samples(
        person=np.append(known.person, [0, -1, -1]),
        camera=np.append(known.camera, [1, -1, 2]).astype(np.int16),
        role=np.append(known.role, [1, 1, 0]).astype(np.uint8),
        name=build_column([*known.name, "0/a.jpg", "x/b.jpg", "x/c.jpg"]),
    )
    roles, split = roles_by_name(samples, "persons:0.5")
    assert [roles[name] for name in ("0/a.jpg", "x/b.jpg", "x/c.jpg")] == ["gallery", "unlabelled", "unlabelled"]
    assert (split.distractors, split.images["unlabelled"], split.no_camera) == (1, 2, 1)
    assert split.persons == {"train": 2, "query": 2, "gallery": 2}
    assert describe_split(split)[1:] == [
        "distractors (person 0) in the gallery: 1 image",
        "unlabelled, for lack of a person: 2 images",
        "without a camera, and counted as one camera: 1 image",
    ]


# What cannot be divided


@pytest.mark.parametrize(
    ("crowd", "rule", "message", "hint"),
    [
        ([[4, 4]], "persons:0.5", "would train on 0 of 1 person and test 1; 2 or more of each", "add images: two"),
        ([[4, 4]], "images:0.5", "would train on 1 of 1 person and test 1; 2 or more of each", "add images: two"),
        ([[4, 4]] * 2, "persons:0.5", "would train on 1 of 2 persons and test 1", "--split images:0.5"),
        ([[4, 4]] * 4, "persons:0.4", "would train on 1 of 4 persons and test 3", "--split persons:0.5"),
        ([[4, 4]] * 4, "persons:.9", "would train on 3 of 4 persons and test 1", "--split persons:0.5"),
        ([[1]] * 8, "persons:0.5", "nobody of the 4 persons in the test has two images there", "add images: two"),
        ([[1]] * 8, "images:0.5", "would train on 8 of 8 persons and test 0", "add images: two"),
        ([[2, 2]] * 9, "images:0.99", "would train on 9 of 9 persons and test 9", None),
        ([[4]] * 4, "cameras:1", "would train on 4 of 4 persons and test 0", "--split persons:0.5"),
        ([[4, 4]] * 4, "cameras:3,7", "no image is from camera 3, 7; there are 1, 2", "--split cameras:1"),
        ([[4, 4]] * 4, "cameras:0.3", "would train on 0 of 4 persons and test 4", "--split persons:0.5"),
    ],
)
def test_what_cannot_be_divided(crowd: Crowd, rule: str, message: str, hint: str | None) -> None:
    samples = photograph(crowd)
    if hint is None:
        with pytest.raises(DataError, match="nobody of the 9 persons in the test is seen by two cameras") as caught:
            roles_by_name(samples, rule)
    else:
        with pytest.raises(DataError, match=message) as caught:
            roles_by_name(samples, rule)
        assert caught.value.hint.startswith(hint)
    if caught.value.hint.startswith("--split"):
        _, proposed, *seed = caught.value.hint.replace(" --split-seed", "").split()
        assert roles_by_name(samples, proposed, seed=int(seed[0]) if seed else 0)[1].images["query"] > 0


def test_a_seed_that_draws_only_persons_of_one_camera_names_one_that_does_not() -> None:
    samples = photograph([[2, 2]] * 2 + [[3]] * 4)
    in_train = {
        seed: set(samples.person[draw_persons(samples.person, "0.5", seed=seed)].tolist()) for seed in range(30)
    }
    bad = [seed for seed, persons in in_train.items() if {1, 2} <= persons]
    assert 0 < len(bad) < 30
    for seed in bad:
        with pytest.raises(DataError, match="nobody of the 3 persons in the test is seen by two cameras") as caught:
            roles_by_name(samples, "persons:0.5", seed=seed)
        _, rule, _, other = caught.value.hint.split()
        assert roles_by_name(samples, rule, seed=int(other))[1].images["query"] > 0


def test_a_camera_is_not_known() -> None:
    with pytest.raises(DataError, match="split cameras:1: no image has a camera"):
        roles_by_name(photograph([[4, 4]] * 4, has_cameras=False), "cameras:1")


def test_roles_of_their_own_are_not_replaced() -> None:
    samples = photograph([[4, 4]] * 4)
    roles, _ = roles_by_name(samples, "persons:0.5")
    with pytest.raises(UsageError, match=r"crowd: has roles already \(train 16, query 4, gallery 12\)"):
        roles_by_name(with_roles(samples, roles), "persons:0.5")


def test_images_without_persons_name_the_layout_that_has_them() -> None:
    samples = photograph([[4]])
    nobody = Samples(person=-samples.person, camera=samples.camera, role=0 * samples.role, name=samples.name)
    with pytest.raises(DataError, match="crowd: 4 images without persons") as caught:
        roles_by_name(nobody, "persons:0.5")
    assert "--layout persons" in caught.value.hint


# Rules


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("persons", "persons:R takes the share R that is trained on, above 0 and below 1", "--split persons:0.5"),
        ("persons:", "above 0 and below 1", "--split persons:0.5"),
        ("persons:0", "above 0 and below 1", "--split persons:0.5"),
        ("persons:0.0", "above 0 and below 1", "--split persons:0.5"),
        ("persons:1", "above 0 and below 1", "--split persons:0.5"),
        ("images:1.5", "above 0 and below 1", "--split images:0.5"),
        ("images:nan", "above 0 and below 1", "--split images:0.5"),
        ("images:-0.5", "above 0 and below 1", "--split images:0.5"),
        ("persons:0.5%", "above 0 and below 1", "--split persons:0.5"),
        ("person:0.5", "did you mean persons:0.5", "--split persons:0.5"),
        ("Images:.25", "did you mean images:.25", "--split images:.25"),
        ("camera:1,2", "did you mean cameras:1,2", "--split cameras:1,2"),
        ("person", "did you mean persons:0.5", "--split persons:0.5"),
        ("cameras:a", "cameras:C,C takes the cameras that are trained on", "--split cameras:1,2"),
        ("cameras:1,", "cameras:C,C takes", "--split cameras:1,2"),
        ("0.7", "did you mean persons:0.7", "--split persons:0.7"),
        ("persons=0.7", "did you mean persons:0.5", "--split persons:0.5"),
        ("ids:0.3", "did you mean persons:0.3", "--split persons:0.3"),
        ("half:0.5", "persons:R, images:R, cameras:C,C or a file was expected", "--split persons:0.5"),
        ("", "not a file, and not a rule either", "--split persons:0.5"),
        ("split.csv", "there is no such file, and not a rule either", "--split persons:0.5"),
    ],
)
def test_bad_rules(text: str, message: str, hint: str) -> None:
    with pytest.raises(LupError, match=message) as caught:
        parse_split(text)
    assert caught.value.hint == hint
    assert caught.value.exit_code in (2, 3)


def test_a_folder_and_a_seed_with_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a file, and not a rule either"):
        parse_split(str(tmp_path))
    (tmp_path / "split.csv").write_text("a.jpg,train\n")
    with pytest.raises(UsageError, match="--split-seed 3: nothing is drawn with a split file"):
        parse_split(str(tmp_path / "split.csv"), seed=3)


# As a source


def test_a_split_source_is_sorted_and_its_digest_follows_the_rule(tmp_path: Path) -> None:
    for person in "abcdef":
        for camera in (1, 2):
            for shot in range(2):
                path = tmp_path / "staff" / person / f"c{camera}_{shot}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(person.encode())
    source = PersonsSource(tmp_path / "staff", dataset="staff", cameras="prefix")

    def split(rule: str, seed: int = 0) -> SplitSource:
        return SplitSource(source, parse_split(rule, seed=seed), dataset="staff")

    def digest(one: SplitSource) -> str:
        return source_digest(one, one.list_images())[0]

    found = split("persons:0.5")
    samples = found.list_images()
    rows = list(zip(samples.role.tolist(), samples.name, strict=True))
    assert rows == sorted(rows)
    assert Counter(samples.role.tolist()) == {1: 12, 2: 6, 3: 6}
    assert found.read(samples.name[0]) == samples.name[0][:1].encode()
    assert source_digest(found, samples)[1] == 24
    facts = found.facts
    assert facts["cameras"] == "prefix"
    assert isinstance(facts["split"], dict)
    assert (facts["split"]["rule"], facts["split"]["seed"]) == ("persons:0.5", 0)
    others = [found, split("persons:0.5", 1), split("persons:0.6"), split("images:0.5"), split("cameras:1")]
    assert len({*map(digest, others), source_digest(source, source.list_images())[0]}) == 6
    assert digest(split("persons:0.5")) == digest(found)
