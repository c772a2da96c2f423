"""The commands from what is there to scores, or to answers."""

import importlib.util
from dataclasses import replace
from pathlib import Path

from lupctl.core.flows.init.looking import look_around, look_at
from lupctl.core.flows.init.machine import choose_finetuning, choose_pretraining, find_machine
from lupctl.core.flows.init.model import Advice, Counts, HeldOut, Machine, Seen, Step
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

# Starting Python with torch, opening files, and writing a page: what every command of evaluation takes.
START_S = 6.0
DEMO_S = 240.0
DEMO = ("demo",)  # it has a workspace of its own
NO_TEST = (
    "a test: four persons with two images each, or two with three, can be divided with data pack --split; the network "
    "is trained and not scored"
)


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
    if seen.counts is not None:
        progress.say(f"times: measured now, on random pixels, on {machine.line}")
    advice = _start(machine, space) if seen.kind == "nothing" else _plan(space, machine, seen)
    if others:
        listed = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        advice = replace(advice, later=(*advice.later, f"also here: {listed}: lupctl init {others[0]}"))
    if home is None:
        return advice
    named = ("--home", str(home))
    steps = tuple(step if step.words == DEMO else replace(step, words=(*step.words, *named)) for step in advice.steps)
    return replace(advice, steps=steps)


def _start(machine: Machine, space: Workspace) -> Advice:
    """Where there is nothing yet."""
    steps = (
        Step(DEMO, "the whole flow on drawn persons, in a folder of its own", DEMO_S),
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


def _plan(space: Workspace, machine: Machine, seen: Seen) -> Advice:
    """The commands for images or videos."""
    counts = seen.counts
    if counts is None:
        return _plan_detection(machine, seen)
    if counts.train_persons > 1 and seen.labels is not None:
        return _plan_scores(machine, seen, counts)
    return _plan_unlabelled(space, machine, seen, counts)


def _plan_scores(machine: Machine, seen: Seen, counts: Counts) -> Advice:
    """Labelled images: train, and score where there is something to test with, or a part can be set aside for it."""
    assert seen.labels is not None
    dataset, labels, tested, missing = seen.dataset, seen.labels, counts.queries + counts.gallery, list(seen.missing)
    steps, split = _pack_steps(machine, seen), None if counts.queries else seen.held_out
    if split is not None:
        dataset, labels, tested = split.dataset, split.labels, split.images
        missing += _weak_points(split, counts)
        if seen.kind == "images":
            steps = [replace(step, words=split.words, about=f"{step.about}; {describe_split(split)}") for step in steps]
        else:
            steps.append(Step(split.words, f"a pack with a test: {describe_split(split)}", START_S / 2))
    elif not tested:
        missing.append(NO_TEST)
    training = choose_finetuning(machine, labels, pretrained=False)
    test_s = START_S + tested * training.image_s
    words = ("finetune", dataset, *training.words)
    steps.append(Step(words, f"train: {training.about}", START_S + training.seconds + (test_s if tested else 0.0)))
    if tested:
        steps.append(Step(("eval", "--rerank"), "mAP and rank-1, plain and re-ranked, as a table and a page", test_s))
    later = (f"with a picture of a person: lupctl find PERSON.jpg --in {seen.dataset}",)
    return Advice(seen, machine, tuple(steps), later, tuple(missing))


def describe_split(split: HeldOut) -> str:
    """Who is trained on and who is tested, in words."""
    if split.is_closed:
        return f"half of each person's to train on, the others to test with {split.queries:,} queries"
    return f"half of the persons to train on, the others to test with {split.queries:,} queries"


def _weak_points(split: HeldOut, counts: Counts) -> list[str]:
    """What scores after this split do not say."""
    found = []
    if split.is_closed:
        found.append("persons: too few to test with others than those trained on; scores of known persons are higher")
    if split.same_camera:
        there = {0: "not known", 1: "one"}.get(counts.cameras, "nobody is seen by two")
        found.append(f"cameras: {there}; so matches from the query's own camera count, and scores are much higher")
    return found


def _plan_unlabelled(space: Workspace, machine: Machine, seen: Seen, counts: Counts) -> Advice:
    """Images of nobody in particular: learn from them without labels, and search."""
    missing = list(seen.missing)
    if counts.train_persons == 1 or counts.persons == 1:
        missing.append("other persons: images of one person alone teach nobody apart, so they are used without labels")
    elif counts.persons:
        missing.append("training images: all of them are for testing, and are not trained on")
    else:
        missing.append("labels: no scores; the network learns without them, and finds images that look alike")
    steps = _pack_steps(machine, seen)
    training = choose_pretraining(machine, counts.unlabelled + counts.train)
    if training is None:
        missing.append(f"images: {counts.unlabelled + counts.train:,} to learn from are too few; published weights "
                       "need none: lupctl model list")  # fmt: skip
        return Advice(seen, machine, tuple(steps), (), tuple(missing))
    run = f"pretrain-moco-{'r50' if 'r50' in training.words else 'r18'}-{seen.dataset}"
    words = ("pretrain", "--data", seen.dataset, *training.words)
    steps.append(Step(words, f"learn without labels: {training.about}", START_S + training.seconds))
    dump_s = START_S + counts.images * training.image_s
    steps.append(Step(("dump", run, seen.dataset), "a feature for each image, to search in", dump_s))
    later = f"with a picture of a person: lupctl search {space.runs / run / seen.dataset}.features.h5 PERSON.jpg"
    return Advice(seen, machine, tuple(steps), (later,), tuple(missing))


def _plan_detection(machine: Machine, seen: Seen) -> Advice:
    """Videos without detections: what comes after depends on who is found."""
    missing, packing = list(seen.missing), seen.packing
    if importlib.util.find_spec("trackers") is None:
        missing.append("tracklets, which tell persons apart: pip install 'lupctl[tracking]', then add --track")
    else:
        packing = (*packing, "--track", "--min-track", "10")
    steps = (Step(packing, "find the persons, and cut them out of the frames"),)
    return Advice(seen, machine, steps, (f"when that is done: lupctl init {seen.dataset}",), tuple(missing))


def _pack_steps(machine: Machine, seen: Seen) -> list[Step]:
    """The command that makes the pack, unless there is one."""
    if seen.kind == "pack" or seen.counts is None:
        return []
    count, is_footage = seen.counts.images, seen.kind == "videos"
    about = f"cut {count:,} crops of persons out of the frames" if is_footage else f"all {count:,} images into one file"
    return [Step(seen.packing, about, START_S / 2 + count * seen.read_s / (1 if is_footage else machine.cores))]
