"""Every name a user may type, the numbers that stand for them in files, and defaults that options show."""

import difflib
from collections.abc import Iterable
from typing import Final, Literal

ResNetArch = Literal["r18", "r50", "r101", "r152"]
ViTArch = Literal["vit-t", "vit-s", "vit-b"]
SwinArch = Literal["swin-u", "swin-t", "swin-s", "swin-b"]
OsnetArch = Literal[
    "osnet-x1.0",
    "osnet-x0.75",
    "osnet-x0.5",
    "osnet-x0.25",
    "osnet-ibn-x1.0",
    "osnet-ain-x1.0",
    "osnet-ain-x0.75",
    "osnet-ain-x0.5",
    "osnet-ain-x0.25",
]
Arch = Literal[ResNetArch, ViTArch, SwinArch, OsnetArch]
# A vision transformer with the stem of convolutions, for short.
IcsArch = Literal["vit-s-ics", "vit-b-ics"]
NamedArch = Literal[Arch, IcsArch]
Stem = Literal["patch", "ics"]
PositionResize = Literal["bilinear", "dino"]
# What can be set of a network after its training.
SettingKey = Literal["semantic_weight", "size", "position", "interpolation"]
NeckFeature = Literal["after", "before"]
CameraUse = Literal["known", "mean", "none"]
Dataset = Literal[
    "market1501", "cuhk03-labeled", "cuhk03-detected", "msmt17", "dukemtmc", "luperson", "luperson-nl", "synthetic"
]
Layout = Literal["market1501", "images", "persons", "cuhk03-index", "msmt17", "luperson-nl", "lmdb", "csv"]
Version = Literal["v1", "v2"]
CameraRule = Literal["none", "market", "prefix", "folder"]
Method = Literal["moco", "pnl", "simclr", "supcon", "dino", "solider"]
PartHead = Literal["frozen", "trained"]
TrainingStage = Literal["pretrain", "finetune"]
CollapseRule = Literal["warn", "stop", "off"]
# Whose names a trunk is written under.
OutwardNames = Literal["torchvision", "timm", "dino", "solider", "torchreid"]
Encoder = Literal["q", "k", "student", "teacher"]
PnlVariant = Literal["ce", "ic", "ce+ic", "ce+pro", "ce+pro+lgc"]
PnlPositives = Literal["given", "corrected"]
ContrastForm = Literal["mean-of-logs", "log-of-mean"]
Pooling = Literal["avg", "gem", "token", "parts"]
HeadKind = Literal["none", "bnneck", "projection", "mgn", "jpm", "parts", "fc"]
ReidHead = Literal["bnneck", "mgn", "jpm", "fc"]
OptimizerName = Literal["sgd", "adam", "amsgrad", "adamw", "lars"]
ScheduleKind = Literal["cosine", "steps", "constant", "transreid", "dino"]
ScheduleUnit = Literal["epoch", "step"]
CurveKind = Literal["constant", "linear", "cosine"]
ClipScope = Literal["all", "tensor"]
Precision = Literal["auto", "float32", "bf16"]
# Programs that run a network's file without PyTorch.
Runtime = Literal["onnxruntime", "openvino"]
# What computes a network that is timed.
Backend = Literal["torch", Runtime]
ExportFormat = Literal["onnx", "openvino", "tensorrt"]
ExportPrecision = Literal["float32", "float16", "int8"]
CalibrationRule = Literal["entropy", "percentile"]
Interpolation = Literal["bilinear", "bicubic"]
EraseFill = Literal["mean", "black", "noise", "constant"]
TripletMining = Literal["hard", "weighted"]
PersonOrder = Literal["epochs", "stream", "cameras", "once", "shuffled"]
# What fine-tuning takes the images of one person to be.
Labels = Literal["persons", "clusters"]
# How the memory of a cluster moves: by all its images in turn, or by the least similar one.
MemoryUpdate = Literal["mean", "hard"]
FeatureType = Literal["float32", "float16"]
MovementDistance = Literal["cosine", "l2", "raw-l2"]
SameCamera = Literal["drop", "keep"]
TestedPersons = Literal["all", "half"]
SearchIndex = Literal["exact", "ivf"]
Protocol = Literal["market1501", "same-camera-allowed", "single-shot", "multi-query"]
RerankBase = Literal["d2", "d4"]
NeighbourSearch = Literal["exact", "faiss"]
SubsetKind = Literal["ids", "images"]
SplitKind = Literal["persons", "images", "cameras", "file"]
DetectionFormat = Literal["luperson", "luperson-nl", "mot", "coco"]
Detector = Literal["fasterrcnn", "fasterrcnn-mobile", "keypointrcnn"]
BoxFilters = Literal["published", "none"]
VideoCameras = Literal["video", "none"]
ImageCheck = Literal["decode", "header"]
Executor = Literal["local", "ray"]
Role = Literal["unlabelled", "train", "query", "gallery"]

ROLE_CODES: Final[dict[Role, int]] = {"unlabelled": 0, "train": 1, "query": 2, "gallery": 3}
ROLE_NAMES: Final[dict[int, Role]] = {code: name for name, code in ROLE_CODES.items()}

# Person numbers with a special meaning, as in Market-1501.
JUNK: Final = -1
DISTRACTOR: Final = 0
UNKNOWN_CAMERA: Final = -1

# The dataset that lupctl draws itself.
SYNTHETIC: Final[Dataset] = "synthetic"

# A start of training that is none.
SCRATCH: Final = "scratch"
# Packing: the share of images that may be left out, and the most encoded bytes in one file.
MAX_BAD: Final = 0.001
SHARD_BYTES: Final = 8 * 2**30
# Drawing persons for a pack, splitting one, and training: another seed gives another result.
DRAWING_SEED: Final = 0
SPLIT_SEED: Final = 0
TRAINING_SEED: Final = 1
# Single-shot evaluation: gallery draws, and their seed.
SHOT_DRAWS: Final = 10
SHOT_SEED: Final = 0


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """The name a user most likely meant, or None when nothing is close.

    >>> nearest_name("makret1501", ["market1501", "synthetic"])
    'market1501'
    """
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return found[0] if found else None
