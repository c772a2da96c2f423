"""Memory of a pre-training step on one device, counted without allocating anything."""

import torch

from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.recipes.dino_sections import DinoSettings
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.pretrain_sections import (
    BatchSettings,
    MethodSettings,
    MocoSettings,
    PnlSettings,
    SimclrSettings,
    SupconSettings,
    shuffles_keys,
)
from lupctl.core.recipes.solider_sections import SoliderSettings
from lupctl.core.training.losses.self_distillation import GLOBAL_VIEWS
from lupctl.core.training.nets.dino import head_parameters
from lupctl.core.training.nets.labelled import build_labelled
from lupctl.core.training.nets.memory import activation_bytes, parameter_bytes, recomputed_bytes
from lupctl.core.training.nets.meta import build_empty
from lupctl.core.training.nets.networks import Embedding
from lupctl.core.training.nets.swin.solider import build_part_head

FLOAT_BYTES = 4


def estimate_memory(
    recipe: PretrainRecipe,
    net: NetworkPlan,
    *,
    processes: int,
    parts: int,
    is_half: bool,
    classes: int = 0,
    sharded: bool = False,
) -> int:
    """Bytes on one device: networks, gradient, optimizer, views, activations of one part, state of the method.

    Args:
        recipe: resolved.
        net: the network it describes.
        processes: number of devices.
        parts: number of parts of a device's share of a batch; one is in memory at a time.
        is_half: whether activations are kept in 16 bits.
        classes: number of labels, if the method uses them.
        sharded: whether every device has its part of the classifier and of the prototypes.
    """
    local = recipe.data.batch // processes
    moments = {"adam": 2, "adamw": 2, "amsgrad": 3}.get(recipe.optim.name, 1)
    # The student, gradient, optimizer state; sums over parts in double precision; messages; then the averaged encoder.
    copies = 2 + moments + (2 if parts > 1 else 0) + (1 if processes > 1 else 0)
    weights = parameter_bytes(net) * copies
    # No message and no sum over parts for a sharded classifier.
    of_classifier = classifier_bytes(recipe.settings, net, classes)
    weights += of_classifier // processes * (2 + moments) if sharded else of_classifier * copies
    weights += parameter_bytes(net) if has_teacher(recipe.settings) else 0
    weights += head_bytes(recipe.settings, net) * (copies + 1)
    if recipe.solider is not None:
        weights += part_head_bytes(recipe.solider, net) * (copies if recipe.solider.part_head == "trained" else 1)
    count = recomputed_bytes if recipe.net.checkpoint_activations else activation_bytes
    crops = student_crops(recipe)
    image = sum(number * count(net, height=height, width=width) for number, height, width in crops)
    image += part_bytes(recipe, net)
    activations = local // parts * image // (2 if is_half else 1)
    method = method_bytes(
        recipe.settings,
        local // parts,
        batch=recipe.data.batch,
        crops=sum(number for number, _, _ in crops) - (0 if recipe.solider is None else GLOBAL_VIEWS),
        classes=classes,
    )
    if sharded and isinstance(recipe.settings, PnlSettings):
        method -= prototype_bytes(recipe.settings, classes) * (processes - 1) // processes
    return weights + local * pixel_bytes(recipe) + activations + method


def student_crops(recipe: PretrainRecipe) -> list[tuple[int, int, int]]:
    """What the student sees of an image in one pass: number, height and width of the views of each size."""
    height, width = recipe.pixels.height, recipe.pixels.width
    if recipe.local is None:
        return [(2 if isinstance(recipe.settings, BatchSettings) else 1, height, width)]
    # With body parts, also a copy of each global view that has one painted over; fewer where some are not used.
    whole = GLOBAL_VIEWS if recipe.solider is None else 2 * GLOBAL_VIEWS
    return [(whole, height, width), (recipe.local.count, recipe.local.height, recipe.local.width)]


def part_bytes(recipe: PretrainRecipe, net: NetworkPlan) -> int:
    """Bytes of the layers of the head for parts, for the tokens of an image's global views and of their copies."""
    if recipe.solider is None:
        return 0
    assert isinstance(net.trunk, SwinPlan)
    rows, columns = net.trunk.grid(recipe.pixels.height, recipe.pixels.width)
    widths = net.trunk.dims[-1] + 4 * recipe.solider.part_hidden + 2 * recipe.solider.part_bottleneck
    return 2 * GLOBAL_VIEWS * rows * columns * widths * FLOAT_BYTES


def pixel_bytes(recipe: PretrainRecipe) -> int:
    """Bytes of the pixels of one image's views, and of their copies in another order."""
    height, width = recipe.pixels.height, recipe.pixels.width
    pixels = (2 + shuffles_keys(recipe.settings)) * height * width
    if recipe.local is not None:  # crops of one size are put together
        pixels = 2 * sum(number * height * width for number, height, width in student_crops(recipe))
    return 3 * pixels * FLOAT_BYTES


def has_teacher(settings: MethodSettings) -> bool:
    """Whether a method has an averaged network: an encoder of keys, or the teacher of crops."""
    return shuffles_keys(settings) or isinstance(settings, DinoSettings)


def head_bytes(settings: MethodSettings, net: NetworkPlan) -> int:
    """Bytes of a head that no checkpoint keeps and that the averaged network has too."""
    if not isinstance(settings, DinoSettings):
        return 0
    network = build_empty(net)
    assert isinstance(network, Embedding)
    return FLOAT_BYTES * head_parameters(
        network.num_features,
        hidden=settings.hidden,
        bottleneck=settings.bottleneck,
        outputs=settings.outputs,
    )


def part_head_bytes(settings: SoliderSettings, net: NetworkPlan) -> int:
    """Bytes of the head for parts, which the trained network alone has."""
    assert isinstance(net.trunk, SwinPlan)
    with torch.device("meta"):
        head = build_part_head(
            net.trunk.dims[-1],
            parts=settings.parts,
            hidden=settings.part_hidden,
            bottleneck=settings.part_bottleneck,
        )
    return sum(value.numel() * FLOAT_BYTES for value in head.parameters())


def classifier_bytes(settings: MethodSettings, net: NetworkPlan, classes: int) -> int:
    """Bytes of a class branch; 0 for a method without one."""
    if not isinstance(settings, PnlSettings) or not settings.classifies:
        return 0
    with torch.device("meta"):
        branch = build_labelled(net, hidden=settings.hidden, classes=classes).classes
    assert branch is not None
    return sum(value.numel() * FLOAT_BYTES for value in branch.parameters())


def prototype_bytes(settings: PnlSettings, classes: int) -> int:
    """Bytes of the prototypes."""
    return settings.dim * classes * FLOAT_BYTES if settings.has_prototypes else 0


def method_bytes(settings: MethodSettings, images: int, *, batch: int, crops: int, classes: int) -> int:
    """Bytes that a method keeps in addition to its networks, and that its loss needs.

    Args:
        settings: the method's section.
        images: number of images in one part.
        batch: number of images in a step over all devices.
        crops: number of views of an image that the student sees.
        classes: number of labels, if the method uses them.
    """
    match settings:
        case MocoSettings():
            return queue_bytes(settings.dim, settings.queue, images)
        case PnlSettings():
            total = queue_bytes(settings.dim, settings.queue, images) if settings.contrasts else 0
            total += prototype_bytes(settings, classes)
            # Two maps of logits, and the exponentials or the gradient of one of them.
            maps = settings.classifies + settings.has_prototypes
            return total + (maps + 1) * images * classes * FLOAT_BYTES if maps else total
        case SimclrSettings() | SupconSettings():
            # Similarities of both views of the whole batch, their exponentials and their gradient.
            return 3 * (2 * batch) ** 2 * FLOAT_BYTES
        case DinoSettings():
            # Of the student's crops: logits and their softmax, which becomes their gradient (in half precision half of
            # a map more, while they are widened). Of the teacher's: logits, probabilities.
            logits = (2 * crops + 2 * 2) * images * settings.outputs
            layers = crops * images * (4 * settings.hidden + 2 * settings.bottleneck)
            return (logits + layers + settings.outputs) * FLOAT_BYTES


def queue_bytes(dim: int, queue: int, images: int) -> int:
    """Bytes of a queue, and of the logits of one part, their softmax and their gradient."""
    return dim * queue * FLOAT_BYTES + 3 * images * (1 + queue) * FLOAT_BYTES
