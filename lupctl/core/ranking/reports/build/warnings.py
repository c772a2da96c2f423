"""The warnings of a report: what its scores were made from, as far as it is known here."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES, SYNTHETIC, Role
from lupctl.core.data.catalog.datasets import catalog_entry, find_entry
from lupctl.core.data.checking.overlap import shared_rows
from lupctl.core.errors import DataError
from lupctl.core.formats.features.precision import describe_bf16_features
from lupctl.core.formats.pack.keys import ImageKeys, read_keys
from lupctl.core.formats.pack.read import Pack, open_pack, read_pack_record
from lupctl.core.formats.pack.split import packed_split
from lupctl.core.formats.pack.verdict import pack_files, read_verdict
from lupctl.core.ranking.reports.model.single import Report, ReportCounts
from lupctl.core.ranking.reports.model.warnings import ReportWarning, WarningKind, sort_warnings
from lupctl.core.ranking.retrieval.answerable import Counts
from lupctl.core.ranking.retrieval.lineage import Lineage, ScoredPack, TrainedPack
from lupctl.core.ranking.retrieval.warnings import describe_small_gallery, describe_unanswered
from lupctl.core.system.examples import count_things

TEST_ROLES: Final[tuple[Role, ...]] = ("query", "gallery")


def warned(report: Report, tested: Sequence[ScoredPack], lineage: Lineage) -> Report:
    """The report with everything that has to be known before its scores are trusted or passed on, as it is now.

    A pack may have been verified, changed or moved since the report was made.

    Args:
        report: the scores.
        tested: the packs that were scored.
        lineage: of the network.
    """
    found = [*_scoring(report), *_published(report), *_cameras(report), *_terms(report, tested, lineage)]
    if rounded := describe_bf16_features(report.provenance.features, report.dataset):
        found.append(_warn("precision", rounded))
    for pack in tested:
        found += _verification(pack)
    found += overlap_warnings(tested, lineage)
    return report.model_copy(update={"warnings": sort_warnings(found)})


def overlap_warnings(tested: Sequence[ScoredPack], lineage: Lineage) -> list[ReportWarning]:
    """Test images, and test persons, that the network was trained on; and what could not be checked."""
    found = [
        _warn("not checked", f"overlap of training and test images: not checked, {reason}")
        for reason in lineage.unknown
    ]
    if lineage.trained and not tested:
        found.append(
            _warn("not checked", "overlap of training and test images: not checked, the features name no pack")
        )
    for pack in tested:
        if pack.path is None:
            if lineage.trained:
                text = f"overlap of training and test images: not checked, the pack of {pack.dataset} is not here"
                found.append(_warn("not checked", text))
            continue
        keys = _keys_of(pack.path)
        if keys is None:
            continue
        for trained in lineage.trained:
            found += _overlap(pack.dataset, keys, trained)
            found += _persons(pack.dataset, keys, trained, is_closed=_is_closed(pack.path))
    return sort_warnings(found)


def is_trained_on(tested: ScoredPack, lineage: Lineage) -> bool:
    """Whether the network was trained, with labels, on training images of the same pack as the test images.

    Images are compared where the packs are here, and the names of the datasets elsewhere.
    """
    own = None if tested.path is None else _keys_of(tested.path)
    for trained in lineage.trained:
        if trained.stage != "finetune":
            continue
        keys = None if trained.path is None else _keys_of(trained.path)
        if own is None or keys is None:
            if trained.dataset == tested.dataset:
                return True
        elif next(_shared(own, ("train",), keys, ("train",)), None) is not None:
            return True
    return False


def _overlap(dataset: str, tested: ImageKeys, trained: TrainedPack) -> Iterator[ReportWarning]:
    keys = None if trained.path is None else _keys_of(trained.path)
    if keys is None:
        yield _warn("not checked", f"overlap with {trained.dataset}: not checked, its pack is not here")
        return
    shared = sum(1 for _ in _shared(tested, TEST_ROLES, keys, _seen_roles(trained)))
    total = len(_rows(tested, TEST_ROLES))
    part = _used_part(trained)
    if shared:
        are = "is" if shared == 1 else "are"
        what = f"{shared:,} of {count_things(total, 'test image')} of {dataset} {are}, byte for byte, among the"
        if trained.is_labelled:
            text = f"{what} training images of {trained.dataset}{part}: scores are too high"
            yield _warn("overlap", text)
        else:
            text = f"{what} images of {trained.dataset} that the network was pre-trained on without labels"
            yield _warn("pretraining", f"{text}{part}: some papers allow it, but say so")


def _persons(dataset: str, tested: ImageKeys, trained: TrainedPack, *, is_closed: bool) -> Iterator[ReportWarning]:
    """Test persons who were trained on: in a closed set they are meant to be."""
    keys = None if trained.path is None else _keys_of(trained.path)
    if keys is None or not trained.is_labelled or trained.dataset != dataset:
        return
    persons, known = _persons_of(tested, TEST_ROLES), _persons_of(keys, _seen_roles(trained))
    both = len(np.intersect1d(persons, known))
    if both:
        are, part = "is" if both == 1 else "are", _used_part(trained)
        text = f"{both:,} of {count_things(len(persons), 'test person')} of {dataset} {are} also among its training"
        kind: WarningKind = "closed set" if is_closed else "persons"
        yield _warn(kind, f"{text} persons{part}: the scores say little about persons never seen before")


def _is_closed(pack: Path) -> bool:
    """Whether a pack was split into a closed set on purpose."""
    try:
        split = packed_split(_record_of(pack))
    except DataError:
        return False
    return split is not None and split.closed_set


def _seen_roles(trained: TrainedPack) -> tuple[Role, ...]:
    return ("train",) if trained.stage == "finetune" else ("train", "unlabelled")


def _used_part(trained: TrainedPack) -> str:
    return f", of which the run used {trained.subset}" if trained.subset else ""


def _scoring(report: Report) -> Iterator[ReportWarning]:
    given = report.counts
    counts = Counts(
        queries=given.queries,
        valid=given.queries_valid,
        absent=given.queries_absent,
        persons=given.query_persons,
        gallery=given.gallery,
        junk=given.junk,
        distractors=given.distractors,
    )
    k1 = None if report.rerank is None else report.rerank.k1
    texts: dict[WarningKind, str] = {
        "queries": describe_unanswered(counts),
        "reranking": describe_small_gallery(counts, k1),
    }
    yield from (ReportWarning(kind=kind, text=text) for kind, text in texts.items() if text)


def _published(report: Report) -> Iterator[ReportWarning]:
    entry = find_entry(report.dataset)
    if entry is None or "query" not in entry.images:
        return
    pairs = [("query", found, wanted) for found, wanted in _query_counts(report, entry.images["query"])]
    counts = report.counts
    pairs.append(("gallery", counts.gallery + counts.junk, entry.images["gallery"]))
    wrong = [(role, found, wanted) for role, found, wanted in pairs if found != wanted]
    if wrong:
        name = "a cut of" if all(found < wanted for _, found, wanted in wrong) else "not the published"
        numbers = ", ".join(f"{role} {found:,} of {wanted:,} images" for role, found, wanted in wrong)
        yield _warn("published", f"{name} {entry.title} ({numbers}): comparable with no paper")


def _cameras(report: Report) -> Iterator[ReportWarning]:
    """Images that the network was not given the cameras of, if it takes cameras."""
    use = report.camera_use
    if use is None:
        return
    given = (
        ("the row for unknown cameras", use.unknown_row),
        ("the mean of all cameras' rows", use.mean_row),
        ("no camera's row", use.no_term),
    )
    total = count_things(use.own_row + sum(count for _, count in given), "image")
    for what, count in given:
        if count:
            yield _warn("cameras", f"{count:,} of {total} of {report.dataset} got {what} instead of their camera's")


def _query_counts(report: Report, wanted: int) -> list[tuple[int, int]]:
    """Queries as found and published; none where several images ask as one."""
    counts: ReportCounts = report.counts
    return [] if report.protocol.name == "multi-query" else [(counts.queries, wanted)]


def _verification(pack: ScoredPack) -> Iterator[ReportWarning]:
    if pack.path is None or pack.dataset == SYNTHETIC:
        return
    verdict, name = read_verdict(pack.path), pack.path.name
    check = f"lupctl data verify {pack.dataset}"
    if verdict is None:
        yield _warn("verification", f"{name} has not been verified as it is now: {check}")
    elif not verdict.sound:
        # Counts that differ from the published ones have a warning of their own.
        errors = [message for what, message in sorted(verdict.errors.items()) if what != "published"]
        if errors or not verdict.errors:
            yield _warn("verification", f"{name} failed its verification: {'; '.join(errors) or f'see {check}'}")


def _terms(report: Report, tested: Sequence[ScoredPack], lineage: Lineage) -> Iterator[ReportWarning]:
    terms: dict[str, str] = {}
    notices: dict[str, str] = {}
    notice = report.provenance.features.get("notice")
    if notice:
        notices[report.dataset] = str(notice)
    for pack in tested:
        record = _record_of(pack.path)
        terms.setdefault(pack.dataset, str(record.get("terms") or ""))
        notices.setdefault(pack.dataset, str((record.get("source") or {}).get("notice") or ""))
    for trained in lineage.trained:
        terms.setdefault(trained.dataset, trained.terms)
        notices.setdefault(trained.dataset, trained.notice)
    if not terms:
        terms[report.dataset] = ""
    for dataset, text in terms.items():
        entry = find_entry(dataset)
        known = text or (entry.terms if entry is not None else "")
        # A notice says what the terms of a withdrawn dataset are; drawn persons have none.
        if known not in ("", notices.get(dataset), catalog_entry("synthetic").terms):
            yield _warn("terms", f"{dataset}: {known}")
    for dataset, text in notices.items():
        if text:
            yield _warn("notice", f"{dataset}: {text}")


def _record_of(path: Path | None) -> dict[str, Any]:
    try:
        return {} if path is None else read_pack_record(path)
    except DataError:
        return {}


def _keys_of(path: Path) -> ImageKeys | None:
    """None for a pack that cannot be read: it is no longer here."""
    try:
        return _read_keys(path, tuple(map(tuple, pack_files(path))))
    except (DataError, OSError):
        return None


@lru_cache(maxsize=4)
def _read_keys(path: Path, files: tuple[tuple[str | int, ...], ...]) -> ImageKeys:
    """The keys of a pack with these files; several networks may have been trained on millions of the same images."""
    return read_keys(path)


def _shared(one: ImageKeys, roles: Sequence[Role], other: ImageKeys, other_roles: Sequence[Role]) -> Iterator[int]:
    return shared_rows(
        one.key,
        _rows(one, roles),
        other.key,
        _rows(other, other_roles),
        read=_reader(one.path),
        read_other=_reader(other.path),
    )


def _reader(path: Path) -> Callable[[int], bytes]:
    """Reads rows of a pack, which is opened at the first of them: nearly always there is none to read."""
    opened: list[Pack] = []

    def read(row: int) -> bytes:
        if not opened:
            opened.append(open_pack(path))
        return opened[0].read(row)

    return read


def _rows(keys: ImageKeys, roles: Sequence[Role]) -> NDArray[np.int64]:
    return np.flatnonzero(np.isin(keys.role, [code for role, code in ROLE_CODES.items() if role in roles]))


def _persons_of(keys: ImageKeys, roles: Sequence[Role]) -> NDArray[np.int64]:
    """The persons of some images, without junk and distractors."""
    persons: NDArray[np.int64] = np.unique(keys.person[_rows(keys, roles)])
    return persons[persons > 0]


def _warn(kind: WarningKind, text: str) -> ReportWarning:
    return ReportWarning(kind=kind, text=text)
