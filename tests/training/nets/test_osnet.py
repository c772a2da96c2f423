"""OSNets against a slow transcription of their definition, and against a published network in ONNX."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from torch import Tensor, nn

from lupctl.core.choices import OsnetArch
from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.file import load_strictly
from lupctl.core.formats.weights.osnet_plan import OsnetPlan
from lupctl.core.formats.weights.plan import FcHead, NetworkPlan, describe_trunk
from lupctl.core.recipes.osnet_sections import OSNET_ARCHS, osnet_grid, takes_images
from lupctl.core.recipes.sections import IMAGENET_MEAN, IMAGENET_STD
from lupctl.core.training.engine.parts import recompute_blocks
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.foreign.grids import Asked
from lupctl.core.training.nets.foreign.recognise import recognise
from lupctl.core.training.nets.memory import count_parameters
from lupctl.core.training.nets.meta import build_empty, embed_nothing
from lupctl.core.training.nets.osnet.network import FcNetwork
from lupctl.core.training.nets.osnet.trunk import OsnetTrunk
from tests.references.osnet import OSNETS, State, draw_state, file_layout, slow_feature, slow_map

ONNX = "models/osnet_x0_25_msmt17.onnx"
CUTS = ("market1501-mini/query", "market1501-mini/bounding_box_test")


def plan_osnet(arch: OsnetArch, classes: int = 0) -> NetworkPlan:
    head = FcHead(kind="fc", classes=classes, outputs=512)
    return NetworkPlan(trunk=OsnetPlan(kind="osnet", arch=arch), pooling="avg", head=head)


def load_file(state: State) -> FcNetwork:
    """Our network with the tensors of a file of torchreid."""
    found = recognise(state, origin="file.pth")
    assert not found.differences
    network = build_network(found.plan)
    assert isinstance(network, FcNetwork)
    load_strictly(network, found.tensors, origin="file.pth")
    return network.eval()


@pytest.mark.parametrize("arch", OSNET_ARCHS)
def test_published_counts(arch: OsnetArch) -> None:
    """Of facts about the published networks: their parameters, and the tensors of a file of Market-1501's persons."""
    published = OSNETS[arch]
    assert count_parameters(plan_osnet(arch)) == published.parameters
    assert count_parameters(plan_osnet(arch, 751)) == published.parameters + 513 * 751
    layout = file_layout(published)
    assert len(layout) == published.tensors
    assert sum(math.prod(shape) for shape in layout.values()) == published.elements
    found = recognise({key: torch.empty(shape, device="meta") for key, shape in layout.items()}, origin="file.pth")
    assert found.plan == plan_osnet(arch)
    assert (found.differences, found.missing) == ((), ())
    assert found.ignored == ("classifier.weight", "classifier.bias")
    assert found.notes == ("classifier of 751 persons left out: features do not need it",)
    assert found.matched == published.tensors - 2
    assert describe_trunk(found.plan.trunk) == arch


@pytest.mark.parametrize("arch", ["osnet-x0.25", "osnet-x0.5", "osnet-ibn-x1.0", "osnet-ain-x0.25", "osnet-ain-x0.75"])
@torch.no_grad()
def test_the_feature_is_the_slow_one(arch: OsnetArch) -> None:
    net = OSNETS[arch]
    state = {key: value.double() for key, value in draw_state(net).items()}
    # Sides that do not divide, so that what rounds up and what rounds down show.
    images = torch.randn(2, 3, 70, 38, generator=torch.Generator().manual_seed(1)).double()
    network = load_file(state).double()
    wanted = slow_map(state, images, net.kind)
    assert tuple(wanted.shape[2:]) == osnet_grid(70, 38)
    assert torch.allclose(network.backbone(images).map, wanted, rtol=1e-9, atol=1e-9)
    feature = network.embed(images)
    assert torch.allclose(feature, slow_feature(state, images, net.kind), rtol=1e-9, atol=1e-9)
    assert (feature.min() == 0) & (feature.max() > 0.1)


@torch.no_grad()
def test_each_part_matters() -> None:
    """A tensor that no feature depends on would hide a mistake in the one before."""
    net = OSNETS["osnet-ain-x0.25"]
    state = draw_state(net)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    before = slow_feature(state, images, "ain")
    network = load_file(state)
    parts = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    for key, value in list(parts.items())[::5]:
        kept = value.clone()
        value.add_(torch.linspace(0.1, 0.9, value.numel()).view_as(value))
        assert not torch.allclose(network.embed(images), before, atol=1e-4), key
        value.copy_(kept)


@pytest.mark.parametrize("arch", ["osnet-x0.25", "osnet-ain-x0.25"])
def test_fresh_weights(arch: OsnetArch) -> None:
    torch.manual_seed(0)
    network = build_network(plan_osnet(arch, 10))
    assert isinstance(network, FcNetwork)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 400:
            fan = module.weight.shape[0] * module.weight[0, 0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.2), name
        elif isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.1), name
            assert not module.bias.any()
        elif isinstance(module, nn.InstanceNorm2d):
            assert module.weight.eq(1).all()
            assert (module.eps, module.track_running_stats) == (1e-5, False)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            assert (module.eps, module.momentum) == (1e-5, 0.1)
    features, logits = network(torch.randn(4, 3, 32, 32))
    assert (tuple(features.shape), tuple(logits.shape)) == ((4, 512), (4, 10))
    assert bool((features >= 0).all())
    assert torch.equal(logits, network.head.classifier(features))  # type: ignore[misc]
    assert [type(one) for one in network.trunk_modules()] == [OsnetTrunk, nn.Sequential]


def test_recomputed_blocks_and_channels_last_give_the_same() -> None:
    images = torch.randn(4, 3, 48, 32, generator=torch.Generator().manual_seed(1))

    def learn(recompute: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        network = build_network(plan_osnet("osnet-ain-x0.25", 3))
        if recompute:
            recompute_blocks(network.all_blocks())
        network(images)[1].logsumexp(1).sum().backward()
        assert len(network.all_blocks()) == 6
        return {name: one.grad for name, one in network.named_parameters()}

    plain, again = learn(False), learn(True)
    assert plain.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in plain.items())
    network = load_file(draw_state(OSNETS["osnet-x0.25"]))
    with torch.no_grad():
        first = network.backbone(images).map
        assert first.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network.embed(images).float()
    whole = network.embed(images).detach()
    assert nn.functional.cosine_similarity(half, whole).min() > 0.999


@pytest.mark.parametrize("arch", ["osnet-x0.25", "osnet-ibn-x1.0", "osnet-ain-x0.25"])
def test_the_least_image(arch: OsnetArch) -> None:
    """What is said to be taken can be computed, what is refused cannot."""
    network = build_network(plan_osnet(arch)).eval()
    for height, width in ((13, 13), (12, 64), (29, 13), (28, 13), (13, 29)):
        images = torch.zeros(1, 3, height, width)
        if takes_images(arch, height, width):
            assert network.embed(images).shape == (1, 512)
            assert osnet_grid(height, width) == tuple(network.backbone(images).map.shape[2:])
        else:
            with pytest.raises((RuntimeError, ValueError)):
                network.embed(images)
    assert embed_nothing(build_empty(plan_osnet(arch)).eval(), height=256, width=128).shape == (1, 512)


def renamed(state: State, old: str, new: str) -> State:
    return {key.replace(old, new) if key.startswith(old) else key: value for key, value in state.items()}


@pytest.mark.parametrize("arch", ["osnet-x0.25", "osnet-ain-x0.25"])
def test_a_file_that_does_not_fit(arch: OsnetArch) -> None:
    state = draw_state(OSNETS[arch])
    without = {key: value for key, value in state.items() if key != "conv5.bn.bias"}
    assert [(one.key, one.found) for one in recognise(without, origin="f").differences] == [("conv5.bn.bias", None)]
    more = {**state, "conv6.weight": torch.zeros(2)}
    assert [(one.key, one.expected) for one in recognise(more, origin="f").differences] == [("conv6.weight", None)]
    # A key that is ours and not torchreid's is not taken for one of theirs.
    ours = {**state, "backbone.pool2.bn.bias": torch.zeros(64)}
    assert [one.key for one in recognise(ours, origin="f").differences] == ["backbone.pool2.bn.bias"]
    other = {**state, "fc.0.weight": torch.zeros(256, 128)}
    assert {one.key for one in recognise(other, origin="f").differences} >= {"fc.0.bias", "fc.1.weight"}
    wrong = {**state, "conv1.conv.weight": torch.zeros(17, 3, 7, 7)}
    assert recognise(wrong, origin="f").differences[0].found == (17, 3, 7, 7)
    with pytest.raises(FormatError, match="an OSNet, which takes images of any size"):
        recognise(state, origin="f", asked=Asked((256, 128), None))
    with pytest.raises(FormatError, match=r"an OSNet's tensors under the prefix 'net\.'"):
        recognise({f"net.{key}": value for key, value in state.items()}, origin="f")


def test_keys_of_the_other_kind() -> None:
    """A file of AIN is never taken for a plain one, whatever fits by shape."""
    mixed = renamed(draw_state(OSNETS["osnet-x0.25"]), "conv2.2.0.", "pool2.0.")
    assert recognise(mixed, origin="f").differences
    assert recognise(mixed, origin="f").plan == plan_osnet("osnet-ain-x0.25")


def test_files_of_several_devices_and_of_imagenet() -> None:
    net = OSNETS["osnet-ain-x0.25"]
    state = {f"module.{key}": value for key, value in draw_state(net, classes=1000).items()}
    found = recognise({key: value for key, value in state.items() if "num_batches" not in key}, origin="f")
    assert (found.prefix, found.is_start, found.differences) == ("module.", True, ())
    assert "ImageNet's number" in found.notes[0]
    assert len(found.missing) == sum("num_batches" in key for key in state)
    bare = {key: value for key, value in draw_state(net).items() if not key.startswith("classifier.")}
    again = recognise(bare, origin="f")
    assert (again.is_start, again.notes, again.ignored) == (False, (), ())


def folded_state(path: Path) -> State:
    """A file of torchreid from an exported network whose norms are part of its convolutions: here they do nothing."""
    graph = onnx.load(path).graph
    numbers = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
    state: State = {}
    for key, shape in file_layout(OSNETS["osnet-x0.25"]).items():
        if key in numbers:
            state[key] = numbers[key]
        elif key.endswith("running_var"):
            state[key] = torch.full(shape, 1 - 1e-5)
        else:
            state[key] = torch.full(shape, 1.0 if ".bn.weight" in key else 0.0)
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1].startswith("onnx::"):
            parts = node.output[0].strip("/").split("/")[:-1]
            # A child of a list has the name of the list in its own: conv2, conv2.0, conv1, conv.
            own = [one for one, after in zip(parts, [*parts[1:], ""], strict=True) if not after.startswith(f"{one}.")]
            where = ".".join(own)
            assert state[f"{where}.weight"].shape == numbers[node.input[1]].shape
            state[f"{where}.weight"] = numbers[node.input[1]]
            state[f"{where.rpartition('.')[0]}.bn.bias"] = numbers[node.input[2]]
    return state


@pytest.mark.real
@torch.no_grad()
def test_a_published_network_in_onnx(real_data: Path) -> None:
    """Torchreid's own network, as somebody else exported it, gives the features that its numbers give in ours."""
    network = load_file(folded_state(real_data / ONNX))
    session = onnxruntime.InferenceSession(real_data / ONNX, providers=["CPUExecutionProvider"])
    paths = [path for folder in CUTS for path in sorted((real_data / folder).glob("*.jpg"))[:8]]
    assert len(paths) == 16
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB").resize((128, 256), 2)) for path in paths])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    images = (images - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    (wanted,) = session.run(None, {"input": images.numpy()})
    found = network.embed(images).numpy()
    assert wanted.max() > 1
    assert (wanted == 0).mean() > 0.2
    # Of features of up to 8.5, whose last norm divides by what hardly varies.
    assert np.abs(found - wanted).max() < 2e-5
    units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (found, wanted)]
    assert np.abs(units[0] - units[1]).max() < 1e-5
