"""The commands from what is there to scores, or to answers."""

import importlib.util
from pathlib import Path

from lupctl.core.flows.init.looking import look_around, look_at
from lupctl.core.flows.init.machine import choose_finetuning, choose_pretraining, find_machine
from lupctl.core.flows.init.model import Advice, Counts, Machine, Seen, Step, join_home
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

# Starting Python with torch, opening files, and writing a page: what every command of evaluation takes.
START_S = 6.0
DEMO_S = 240.0
# Persons that are left to test with, of which a split takes half.
FEWEST_TO_SPLIT = 4
QUERY = "a query: a picture of the person you look for"


def advise(space: Workspace, given: str | None, *, home: Path | None, progress: Progress) -> Advice:
    """Looks at what is there and plans the commands from there to scores.

    Args:
        space: the workspace.
        given: a folder, a table, videos, a pack, or a name in the workspace; None for the workspace itself.
        home: the workspace as it was named; every command then names it too.
        progress: reports what was detected.

    Raises:
        DataError: there is nothing of that name, or it cannot be read.
    """
    machine, others = find_machine(), list[str]()
    if given is None:
        seen, names = look_around(space, progress=progress)
        others = [name for name in names if name != seen.dataset]
    else:
        seen = look_at(space, given, progress=progress)
    found = _start(machine, space) if seen.kind == "nothing" else _plan(machine, seen)
    steps = tuple(Step(join_home(step.words, home), step.about, step.seconds) for step in found.steps)
    if others:
        listed = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        found_later = (*found.later, f"also here: {listed}: lupctl init {others[0]}")
        return Advice(seen, machine, steps, found_later, found.missing)
    return Advice(seen, machine, steps, found.later, found.missing)


def _start(machine: Machine, space: Workspace) -> Advice:
    """Where there is nothing yet."""
    steps = (
        Step(("demo",), "the whole flow on drawn persons, in a folder of its own", DEMO_S),
        Step(("data", "list"), "the datasets of the field, their terms, and how each is got", 2.0),
    )
    raw = space.raw / "market1501"
    fetch = "lupctl data download market1501 --accept-terms"
    later = (
        "images of your own, a folder for each person, or a table of them: lupctl init FOLDER",
        f"a benchmark whose terms you accept: {fetch}; or put it into {raw}; then: lupctl init",
        "videos: lupctl init FOLDER",
    )
    return Advice(Seen("nothing", title=f"nothing is in {space.home} yet"), machine, steps, later)


def _plan(machine: Machine, seen: Seen) -> Advice:
    """The commands for images or videos."""
    counts = seen.counts
    if counts is None:
        return _plan_detection(machine, seen)
    if counts.train_persons > 1 and seen.labels is not None:
        return _plan_scores(machine, seen, counts)
    return _plan_unlabelled(machine, seen, counts)


def _plan_scores(machine: Machine, seen: Seen, counts: Counts) -> Advice:
    """Labelled images: train, and score where there is something to test with, or a part can be set aside for it."""
    import numpy as np

    assert seen.labels is not None
    labels, packing, missing = seen.labels, seen.packing, list(seen.missing)
    about = f"all {counts.images:,} images into one file"
    has_test = counts.queries > 0
    if not has_test and packing[:2] == ("data", "pack") and counts.spanning >= FEWEST_TO_SPLIT:
        packing, has_test = (*packing, "--split", "persons:0.5"), True
        persons = np.unique(labels)
        labels = labels[np.isin(labels, persons[: len(persons) // 2])]
        about += ", half of the persons to train on, the others to test"
    elif not has_test:
        missing.append(_why_no_scores(counts))
    training = choose_finetuning(machine, labels, pretrained=False)
    tested = counts.queries + counts.gallery if counts.queries else counts.images - len(labels)
    test_s = START_S + tested * training.image_s
    train_s = None if training.seconds is None else START_S + training.seconds + (test_s if has_test else 0.0)
    steps = _pack_steps(machine, seen, packing, about)
    steps.append(Step(("finetune", seen.dataset, *training.words), f"train: {training.about}", train_s))
    if has_test:
        steps.append(Step(("eval", "--rerank"), "mAP and rank-1, plain and re-ranked, as a table and a page", test_s))
    return Advice(seen, machine, tuple(steps), _later(seen), (*missing, QUERY))


def _plan_unlabelled(machine: Machine, seen: Seen, counts: Counts) -> Advice:
    """Images of nobody in particular: learn from them without labels, and search."""
    missing = list(seen.missing)
    if counts.train_persons == 1 or counts.persons == 1:
        missing.append("other persons: images of one person alone teach nobody apart, so they are used without labels")
    elif counts.persons:
        missing.append("training images: all of them are for testing, and are not trained on")
    else:
        missing.append("labels: no scores; the network learns without them, and finds images that look alike")
    steps = _pack_steps(machine, seen, seen.packing, f"all {counts.images:,} images into one file")
    training = choose_pretraining(machine, counts.unlabelled + counts.train)
    if training is None:
        missing.append(f"images: {counts.unlabelled + counts.train:,} to learn from are too few; published weights "
                       "need none: lupctl model list")  # fmt: skip
        return Advice(seen, machine, tuple(steps), (), tuple(missing))
    run = f"pretrain-moco-{'r50' if 'r50' in training.words else 'r18'}-{seen.dataset}"
    seconds = None if training.seconds is None else START_S + training.seconds
    words = ("pretrain", "--data", seen.dataset, *training.words)
    steps.append(Step(words, f"learn without labels: {training.about}", seconds))
    dump_s = START_S + counts.images * training.image_s
    steps.append(Step(("dump", run, seen.dataset), "a feature for each image, to search in", dump_s))
    return Advice(seen, machine, tuple(steps), _later(seen), (*missing, QUERY))


def _plan_detection(machine: Machine, seen: Seen) -> Advice:
    """Videos without detections: what comes after depends on who is found."""
    missing, packing = list(seen.missing), seen.packing
    if importlib.util.find_spec("trackers") is None:
        missing.append("tracklets, which tell persons apart: pip install 'lupctl[tracking]', then add --track")
    else:
        packing = (*packing, "--track", "--min-track", "10")
    steps = (Step(packing, "find the persons, and cut them out of the frames"),)
    return Advice(seen, machine, steps, (f"when that is done: lupctl init {seen.dataset}",), tuple(missing))


def _pack_steps(machine: Machine, seen: Seen, packing: tuple[str, ...], about: str) -> list[Step]:
    """The command that makes the pack, unless there is one."""
    if seen.kind == "pack" or seen.counts is None:
        return []
    if seen.kind == "videos":
        about = f"cut {seen.counts.images:,} crops of persons out of the frames"
    cores = 1 if seen.kind == "videos" else machine.cores
    return [Step(packing, about, START_S / 2 + seen.counts.images * seen.read_s / cores)]


def _why_no_scores(counts: Counts) -> str:
    """What a test needs, and is not there."""
    if counts.cameras < 2:
        there = "one camera" if counts.cameras else "cameras are not known"
        return f"cameras: {there}, and a query is answered by images from another one; the network is trained unscored"
    return f"persons seen by two cameras: {counts.spanning}, and a test needs {FEWEST_TO_SPLIT}; trained unscored"


def _later(seen: Seen) -> tuple[str, ...]:
    return (f"with a picture of a person: lupctl find PERSON.jpg --in {seen.dataset}",)
