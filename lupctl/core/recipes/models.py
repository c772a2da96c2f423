"""The two kinds of recipe: the settings of a training run, section by section, and checks across sections."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from lupctl.core.choices import TRAINING_SEED, Arch, Labels, Method, Precision
from lupctl.core.recipes.cluster_sections import ClusterSettings, check_clusters
from lupctl.core.recipes.dino_sections import DinoSettings, LocalAugment, SecondAugment, Watch, check_views
from lupctl.core.recipes.distil_sections import DistilSettings
from lupctl.core.recipes.finetune_sections import Evaluation, FinetuneData, FinetuneNet, Losses, check_order
from lupctl.core.recipes.osnet_sections import check_osnet
from lupctl.core.recipes.pretrain_sections import (
    Curves,
    MethodSettings,
    MocoSettings,
    PnlSettings,
    PretrainData,
    PretrainOptim,
    Probe,
    SimclrSettings,
    SupconSettings,
    WeakAugment,
    check_sections,
)
from lupctl.core.recipes.sections import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augment,
    MisfitError,
    Net,
    Optim,
    Pixels,
    Positive,
    Saving,
    ScheduleSettings,
    Section,
)
from lupctl.core.recipes.solider_sections import SoliderSettings, check_method_trunk, check_solider
from lupctl.core.recipes.swin_sections import FinetuneSwin, PretrainSwin, check_swin, check_swin_section
from lupctl.core.recipes.vit_sections import (
    FinetuneVit,
    JpmSettings,
    PretrainVit,
    SieSettings,
    check_arch_sections,
    check_head,
    check_vit,
)

MGN_HEIGHT_STEP = 96
# Of a recipe that names no architecture.
DEFAULT_ARCH: Final[Arch] = "r50"


class PretrainRecipe(Section):
    """Everything that decides the result of a pre-training run.

    Args:
        stage: always pretrain.
        method: of pre-training; only its own sections may be present.
        seed: of weights, order and augmentation.
        bn_groups: equal parts of the global batch, each with its own batch-norm statistics.
        precision: auto is bf16 where the device is fast in it, a CPU too.
    """

    stage: Literal["pretrain"] = "pretrain"
    method: Method = "moco"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = TRAINING_SEED
    bn_groups: Positive = 8
    precision: Precision = "auto"
    net: Net = Net()
    vit: PretrainVit | None = None
    swin: PretrainSwin | None = None
    data: PretrainData = PretrainData()
    pixels: Pixels = Pixels()
    augment: Augment = Augment()
    augment_weak: WeakAugment | None = None
    augment_second: SecondAugment | None = None
    local: LocalAugment | None = None
    moco: MocoSettings | None = None
    pnl: PnlSettings | None = None
    simclr: SimclrSettings | None = None
    supcon: SupconSettings | None = None
    dino: DinoSettings | None = None
    solider: SoliderSettings | None = None
    optim: PretrainOptim = PretrainOptim()
    schedule: ScheduleSettings = ScheduleSettings()
    curves: Curves = Curves()
    saving: Saving = Saving()
    probe: Probe = Probe()
    watch: Watch = Watch()

    @model_validator(mode="before")
    @classmethod
    def _check_sections(cls, tables: Any) -> Any:
        if not isinstance(tables, dict):
            return tables
        check_method_trunk(tables, DEFAULT_ARCH)
        own = check_sections(tables, str(tables.get("method", "moco")))
        return check_arch_sections(check_swin_section(own, DEFAULT_ARCH), DEFAULT_ARCH)

    @property
    def settings(self) -> MethodSettings:
        """The method's own section; of solider that of dino, which it has beside its own."""
        match self.method:
            case "moco":
                settings: MethodSettings | None = self.moco
            case "pnl":
                settings = self.pnl
            case "simclr":
                settings = self.simclr
            case "supcon":
                settings = self.supcon
            case "dino" | "solider":
                settings = self.dino
        assert settings is not None, "filled in by `check_sections`"
        return settings

    @property
    def has_batch_norm(self) -> bool:
        """Whether the trunk has any."""
        return self.swin is None and (self.vit is None or self.vit.stem == "ics")

    @property
    def drop_path(self) -> float:
        """Rate of stochastic depth at the last block; 0 of a residual network."""
        blocks = self.vit or self.swin
        return 0.0 if blocks is None else blocks.drop_path

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        check_divides("bn_groups", self.bn_groups, "data.batch", self.data.batch)
        if self.has_batch_norm and self.bn_groups % self.optim.accumulate:
            raise ValueError(
                f"optim.accumulate = {self.optim.accumulate} does not divide bn_groups = {self.bn_groups}; "
                "a part of a batch needs whole groups"
            )
        if self.pnl is not None and self.pnl.sharded:  # both look at the gradients of a whole tensor
            if self.optim.clip > 0:
                raise ValueError(f"optim.clip = {self.optim.clip} cannot be combined with pnl.sharded")
            if self.optim.name == "lars":
                raise ValueError("optim.name = 'lars' cannot be combined with pnl.sharded")
        return self

    @model_validator(mode="after")
    def _check_trunk(self) -> Self:
        check_swin(self.net, self.swin)
        check_vit(self.net, self.vit, self.pixels)
        check_osnet(self.net, self.pixels)
        check_running(self.net)
        if self.drop_path and self.dino is None:
            section, owners = ("vit", "method dino") if self.swin is None else ("swin", "methods dino and solider")
            key = f"{section}.drop_path"
            raise MisfitError(
                f"{key} = {self.drop_path} is of the {owners}; this recipe's method is {self.method}",
                hint=f"--set {key}=0.0",
            )
        if self.local is not None:
            check_views(self.net, self.vit, self.pixels, self.local)
        if self.solider is not None and self.swin is not None:
            check_solider(self.swin, self.pixels, self.solider)
        return self


class FinetuneRecipe(Section):
    """Everything that decides the result of a fine-tuning run.

    Args:
        stage: always finetune.
        losses: of persons; None on clusters, whose loss is in `clusters`.
        distil: a teacher; None for none.
        start: a run, a checkpoint file, imagenet, scratch, finetuned for the newest fine-tuning run here on another
            dataset, or empty for the newest pre-training run.
        labels: persons, as the packs name them; or clusters, which are found in the images, and no label is looked at.
        seed, bn_groups, precision: as in pre-training.
        freeze_epochs: the pre-trained parts are frozen for this many epochs and one step.
        auto_augment_epochs: AutoAugment's ImageNet policy comes before all other augmentation, with a probability that
            falls from 1 to 0 over this many epochs; 0 turns it off.
    """

    stage: Literal["finetune"] = "finetune"
    start: str = ""
    labels: Labels = "persons"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = TRAINING_SEED
    bn_groups: Positive = 1
    precision: Precision = "auto"
    freeze_epochs: Annotated[float, Field(ge=0)] = 0.0
    auto_augment_epochs: Annotated[float, Field(ge=0)] = 0.0
    net: FinetuneNet = FinetuneNet(last_stride=1)
    vit: FinetuneVit | None = None
    swin: FinetuneSwin | None = None
    sie: SieSettings | None = None
    jpm: JpmSettings | None = None
    data: FinetuneData = FinetuneData()
    pixels: Pixels = Pixels(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    augment: Augment = Augment(crop_area=(), pad=10, grey=0.0, blur=0.0, flip=0.5, erase=0.5, erase_area=(0.02, 0.4))
    losses: Losses | None = None
    clusters: ClusterSettings | None = None
    distil: DistilSettings | None = None
    optim: Optim = Optim(name="adam", lr=3.5e-4, weight_decay=5e-4)
    schedule: ScheduleSettings = ScheduleSettings(
        epochs=120, kind="steps", warmup_epochs=10, warmup_factor=0.1, milestones=(40, 70)
    )
    evaluation: Evaluation = Evaluation()
    saving: Saving = Saving(every_epochs=10)

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        check_divides("bn_groups", self.bn_groups, "data.persons * data.images", self.data.persons * self.data.images)
        return self

    @model_validator(mode="before")
    @classmethod
    def _check_sections(cls, tables: Any) -> Any:
        if not isinstance(tables, dict):
            return tables
        own = check_swin_section(check_clusters(tables), DEFAULT_ARCH)
        return check_arch_sections(own, DEFAULT_ARCH, own=("vit", "sie"))

    @model_validator(mode="after")
    def _check_trunk(self) -> Self:
        check_swin(self.net, self.swin)
        check_head(self.net, self.vit, self.jpm, self.pixels)
        check_vit(self.net, self.vit, self.pixels)
        check_osnet(self.net, self.pixels)
        check_running(self.net)
        check_order(self.data, self.losses)
        if self.clusters is not None and self.distil is not None:
            raise MisfitError(
                "distil: a teacher helps to learn from labels, and labels = 'clusters' looks at none",
                hint="--labels persons, or leave out --teacher",
            )
        if self.clusters is not None and (self.net.head != "bnneck" or self.net.pooling == "parts"):
            key, value = ("head", self.net.head) if self.net.head != "bnneck" else ("pooling", self.net.pooling)
            raise MisfitError(
                f"net.{key} = {value!r}: clusters are of one feature an image, that of the head bnneck",
                hint="--set net.head=bnneck" if key == "head" else "--recipe usl-vit-s",
            )
        if self.clusters is not None and self.net.feature != "after":
            raise MisfitError(
                f"net.feature = {self.net.feature!r}: clusters are of the feature the loss compares, the one "
                "after the neck",
                hint="--set net.feature=after",
            )
        return self

    @property
    def drop_path(self) -> float:
        """Rate of stochastic depth at the last block; 0 of a residual network."""
        blocks = self.vit or self.swin
        return 0.0 if blocks is None else blocks.drop_path

    @model_validator(mode="after")
    def _check_stripes(self) -> Self:
        if self.net.head == "mgn" and self.pixels.height % MGN_HEIGHT_STEP:
            raise ValueError(
                f"pixels.height = {self.pixels.height} is not a multiple of {MGN_HEIGHT_STEP}, "
                "which mgn needs to cut its maps into two and three stripes"
            )
        return self


Recipe = PretrainRecipe | FinetuneRecipe


def check_running(net: Net) -> None:
    """Refuses to recompute what is compiled: the compiler decides by itself what a backward pass keeps."""
    if net.compile and net.checkpoint_activations:
        raise ValueError("net.compile and net.checkpoint_activations cannot be combined")


def check_divides(key: str, groups: int, batch_key: str, batch: int) -> None:
    """Refuses groups of unequal size, or of one image, which has no variance."""
    if batch % groups or batch // groups < 2:
        raise ValueError(f"{key} = {groups} does not divide {batch_key} = {batch} into equal parts of two or more")
