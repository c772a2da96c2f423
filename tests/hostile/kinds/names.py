"""Names of files and words of a command line."""

from contextlib import suppress
from random import Random

from tests.hostile.runner import Case, Place, pick_command
from tests.hostile.values import file_name, number_text, text
from tests.tools.tiny.images import encode_tiny

IMAGE_COMMANDS = """
data pack --workers 1
data list
data list --json
data verify lup/raw/people
data pack people --layout images --workers 1 --json
data pack people --layout persons --workers 1 --json
data pack people --layout market1501 --workers 1 --json
"""
RUN_COMMANDS = """
run list
run list --json
run show {name}
run rm {name} --yes --dry-run
dump fine labelled --workers 0 --device cpu
eval {name} --device cpu --no-page
model list
recipe show {name}
"""
PACK_COMMANDS = """
data list
data info lup/packs/{name}.h5
data info gone
data verify lup/packs/{name}.h5 --json
finetune lup/packs/{name}.h5 --from scratch --gpus 0 --dry-run
pretrain --gpus 0 --dry-run
"""
WORD_COMMANDS = """
{word}
data {word}
data info {word}
data pack {word}
data pack crops --out {word}
data pack crops --name {word}
data pack crops --home {word}
data pack crops --size {word}
data pack crops --layout {word}
data pack crops --keys {word}
data pack crops --label-noise {word}
data pack people --split {word}
data pack --merge {word} crowd labelled
data verify {word}
data rm {word} --yes
data list --home {word}
data download {word}
data download mine --url {word}
data download mine --url http://{word}/x.zip
data download mine --url http://127.0.0.1:9/x.zip --sha256 {word}
data build {word}
data build x --videos {word}
data build x --videos videos --detections {word}
data build x --videos videos --detections mot --aspect {word}
data build x --videos videos --detector fasterrcnn-mobile --detector-weights {word} --device cpu --workers 1
data build x --videos videos --detector fasterrcnn-mobile --detector-weights foreign.pth --device cpu --workers 1
pretrain --data {word} --gpus 0
pretrain --data crowd --out {word} --gpus 0 --dry-run
pretrain --data crowd --recipe {word} --gpus 0 --dry-run
pretrain --data crowd --from {word} --gpus 0 --dry-run
finetune {word} --gpus 0
finetune labelled --from {word} --gpus 0 --dry-run
finetune labelled --from scratch --out {word} --gpus 0 --dry-run
dump {word}
dump fine {word}
dump fine labelled --out {word} --workers 0 --device cpu
dump fine labelled --shard {word}
dump fine labelled --role {word}
eval {word}
eval {word} --home {word}
eval {word} {word} --compare
eval fine --out {word} --device cpu --no-page
eval fine --images {word} --device cpu
eval fine --sweep {word}
eval fine --published {word} --device cpu --no-page
eval fine --explain --out {word} --device cpu --dry-run
eval fine --threshold {word} --device cpu --no-page
search {word} a.jpg
search fine {word}
search fine a.jpg --sheet {word} --device cpu
find {word} --in labelled
find a.jpg --in {word}
find a.jpg --in labelled --after {word}
model info {word}
model convert {word}
model convert foreign.pth --out {word}
model convert foreign.pth --recipe {word}
model convert foreign.pth --size {word}
model convert lup/runs/fine --to torchvision --out {word}
model export {word}
model download {word}
recipe show {word}
recipe show bot --set {word}
run show {word}
run rm {word} --yes
run list --home {word}
manual {word}
init {word}
demo --home {word} --dry-run
"""


def files(draw: Random, place: Place) -> Case:
    """Images, runs and packs whose names are traps."""
    kind, name = draw.choice(("images", "images", "persons", "runs", "packs", "raw")), file_name(draw)
    if kind == "runs":
        place.take("lup/runs/fine", f"lup/runs/{name}")
        place.take("lup/packs")
        return Case(pick_command(draw, RUN_COMMANDS, name=name))
    if kind == "packs":
        place.take("lup/packs/labelled.h5", f"lup/packs/{name[:80]}.h5")
        return Case(pick_command(draw, PACK_COMMANDS, name=name[:80]))
    root = place.take("lup/raw/people", f"lup/raw/{name if kind == 'raw' else 'people'}")
    for seed in range(2):
        parts = [*(["3"] if kind == "persons" else []), *(file_name(draw) for _ in range(draw.choice((0, 1))))]
        end = draw.choice((".jpg", ".png", "\udcff\udcfe.jpg", "_c1.jpg"))  # 255 and 254, as bytes that are not UTF-8
        path = root.joinpath(*parts, file_name(draw)[:60] + end)
        with suppress(OSError):  # too long here
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_tiny(seed))
    return Case(pick_command(draw, IMAGE_COMMANDS))


def words(draw: Random, place: Place) -> Case:
    """A command line with a word that is a trap."""
    word = draw.choice((text(draw), text(draw), number_text(draw), file_name(draw), "x/" * 3_000, "a" * 4_090 + "/x"))
    line = pick_command(draw, WORD_COMMANDS, word=word.replace("\0", "0").replace("\ud800", "?"))
    for name in ("a.jpg", "videos", "mot", "foreign.pth"):
        if name in line:
            place.take(name)
    if draw.random() < 0.7:
        place.take("lup")
    return Case(line, changes=("lup/packs", "lup/runs") if "rm" in line else ())
