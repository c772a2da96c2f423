"""Networks against torchvision's, and batch norm in groups against one batch norm for each group."""

import copy
import typing

import pytest
import torch
import torchvision
from torch import Tensor, nn

from lupctl.core.choices import ResNetArch
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.heads import BatchNormNeck, Projection
from lupctl.core.training.nets.networks import ContrastiveNetwork, ReidNetwork
from lupctl.core.training.nets.pooling import Average, GeneralisedMean
from lupctl.core.training.nets.resnet.norms import GroupedBatchNorm1d, GroupedBatchNorm2d, set_norm_groups
from lupctl.core.training.nets.resnet.trunk import ResNetTrunk
from lupctl.core.training.nets.trunk import Maps
from tests.tools.networks import neck, plan_network, projection

TORCHVISION = {
    "r18": torchvision.models.resnet18,
    "r50": torchvision.models.resnet50,
    "r101": torchvision.models.resnet101,
    "r152": torchvision.models.resnet152,
}


def trunk_state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}


@pytest.mark.parametrize("arch", typing.get_args(ResNetArch))
def test_keys_and_shapes_are_torchvisions(arch: ResNetArch) -> None:
    with torch.device("meta"):
        ours = {key: value.shape for key, value in ResNetTrunk(arch).state_dict().items()}
        theirs = {key: value.shape for key, value in trunk_state(TORCHVISION[arch](weights=None)).items()}
    assert list(ours) == list(theirs)
    assert ours == theirs
    if arch == "r50":
        assert len(ours) == 318  # the published LUPerson backbone has as many


@pytest.mark.parametrize("arch", ["r18", "r50"])
def test_forward_is_torchvisions(arch: ResNetArch) -> None:
    torch.manual_seed(1)
    theirs = TORCHVISION[arch](weights=None)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):  # running statistics that matter
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    theirs.fc = nn.Identity()
    ours = ResNetTrunk(arch)
    ours.load_state_dict(trunk_state(theirs))
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        features = Average()(ours.eval()(images))
        # Values of some thousands; sums in the same order.
        expected = theirs.eval()(ours.lay_out(images))
    assert features.shape == (2, ours.num_features)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ["r18", "r50"])
def test_last_stride_1_doubles_the_map_with_the_same_weights(arch: ResNetArch) -> None:
    usual, fine = ResNetTrunk(arch, width=8).eval(), ResNetTrunk(arch, width=8, last_stride=1).eval()
    fine.load_state_dict(usual.state_dict())
    images = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        coarse_map, fine_map = usual(images).map, fine(images).map
    assert coarse_map.shape[2:] == (2, 1)
    assert fine_map.shape[2:] == (4, 2)


def test_initialisation_is_torchvisions() -> None:
    """Kaiming's normal over the fan-out: variance 2 / (k * k * channels out)."""
    torch.manual_seed(0)
    for name, module in ResNetTrunk("r18").named_modules():
        if isinstance(module, nn.Conv2d):
            expected = (2 / (module.kernel_size[0] ** 2 * module.out_channels)) ** 0.5
            assert float(module.weight.detach().std()) == pytest.approx(expected, rel=0.05), name
        if isinstance(module, nn.BatchNorm2d):
            assert set(module.weight.tolist()) == {1}


def test_a_narrow_trunk_scales_every_stage() -> None:
    trunk = ResNetTrunk("r50", width=16)
    assert trunk.num_features == 512
    maps = trunk(torch.randn(2, 3, 32, 32))
    assert (maps.map.shape, maps.token) == ((2, 512, 1, 1), None)


# Batch norm in groups


@pytest.mark.parametrize("groups", [2, 3, 6])
@pytest.mark.parametrize("kind", ["1d", "2d", "channels last"])
def test_groups_are_separate_batch_norms_of_interleaved_parts(kind: str, groups: int) -> None:
    torch.manual_seed(2)
    batch = torch.randn(12, 5) * 3 + 1 if kind == "1d" else torch.randn(12, 5, 4, 3) * 3 + 1
    if kind == "channels last":
        batch = batch.contiguous(memory_format=torch.channels_last)
    plain = nn.BatchNorm1d(5) if kind == "1d" else nn.BatchNorm2d(5)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    nn.init.normal_(plain.running_mean)
    nn.init.uniform_(plain.running_var, 0.5, 2)
    ours = GroupedBatchNorm1d(5) if kind == "1d" else GroupedBatchNorm2d(5)
    ours.load_state_dict(plain.state_dict())
    set_norm_groups(ours, groups)
    weighting = torch.randn_like(batch)

    parts = [copy.deepcopy(plain) for _ in range(groups)]
    expected_input = batch.clone().requires_grad_()
    expected = torch.empty_like(batch)
    for group, norm in enumerate(parts):
        expected[group::groups] = norm(expected_input[group::groups])
    (expected * weighting).sum().backward()

    own_input = batch.clone().requires_grad_()
    result = ours(own_input)
    (result * weighting).sum().backward()

    torch.testing.assert_close(result, expected)
    assert result.stride() == own_input.grad.stride() == batch.stride()
    torch.testing.assert_close(own_input.grad, expected_input.grad)
    torch.testing.assert_close(ours.weight.grad, torch.stack([norm.weight.grad for norm in parts]).sum(0))
    torch.testing.assert_close(ours.bias.grad, torch.stack([norm.bias.grad for norm in parts]).sum(0))
    torch.testing.assert_close(ours.running_mean, torch.stack([norm.running_mean for norm in parts]).mean(0))
    torch.testing.assert_close(ours.running_var, torch.stack([norm.running_var for norm in parts]).mean(0))
    assert int(ours.num_batches_tracked) == 1
    with torch.no_grad():
        whole = nn.BatchNorm1d(5) if kind == "1d" else nn.BatchNorm2d(5)
        whole.load_state_dict(plain.state_dict())
        assert not torch.allclose(whole(batch), result)


@pytest.mark.parametrize("kind", ["1d", "2d"])
def test_one_group_and_evaluation_are_plain(kind: str) -> None:
    torch.manual_seed(3)
    batch = torch.randn(8, 4) if kind == "1d" else torch.randn(8, 4, 3, 2)
    plain = nn.BatchNorm1d(4) if kind == "1d" else nn.BatchNorm2d(4)
    ours = GroupedBatchNorm1d(4) if kind == "1d" else GroupedBatchNorm2d(4)
    for _ in range(3):
        assert torch.equal(ours(batch), plain(batch))
    assert torch.equal(ours.running_var, plain.running_var)
    ours.groups = 4
    assert torch.equal(ours.eval()(batch), plain.eval()(batch))
    assert torch.equal(ours.running_mean, plain.running_mean)


def test_groups_reach_every_batch_norm() -> None:
    network = build_network(plan_network(neck(3), "r50"))
    set_norm_groups(network, 4)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == 54  # 53 in the trunk, and the neck
    assert all(norm.groups == 4 for norm in norms)


def test_images_of_one_group_do_not_touch_those_of_another() -> None:
    torch.manual_seed(4)
    trunk = ResNetTrunk("r18", width=4)
    set_norm_groups(trunk, 2)
    images = torch.randn(8, 3, 32, 16)
    before = trunk(images).map
    images[1::2] = torch.randn(4, 3, 32, 16)
    after = trunk(images).map
    assert torch.equal(before[0::2], after[0::2])
    assert not torch.allclose(before[1::2], after[1::2])


def test_ibn_normalises_half_of_the_channels_per_image() -> None:
    torch.manual_seed(9)
    trunk = ResNetTrunk("r50", width=8, ibn=True)
    keys = [key for key in trunk.state_dict() if ".IN." in key]
    assert len(keys) == 2 * (3 + 4 + 6), "weight and bias in every block of the first three stages"
    assert len([key for key in trunk.state_dict() if key.startswith("layer4") and ".IN." in key]) == 0
    norm = trunk.get_submodule("layer2.1.bn1")
    assert {trunk.state_dict()[f"layer2.1.bn1.{half}.weight"].shape for half in ("IN", "BN")} == {(8,)}
    batch = torch.randn(4, 16, 5, 3) * 3 + 1
    out = norm(batch)
    for image in range(4):
        for channel in range(8):
            plane = batch[image, channel]
            expected = (plane - plane.mean()) / (plane.var(correction=0) + 1e-5).sqrt()
            torch.testing.assert_close(out[image, channel], expected)
    torch.testing.assert_close(out[:, 8:], nn.BatchNorm2d(8)(batch[:, 8:]))
    set_norm_groups(trunk, 2)
    assert norm.BN.groups == 2


# Pooling and heads


def test_generalised_mean_is_its_formula() -> None:
    features = torch.randn(3, 5, 4, 2, dtype=torch.float64)
    pool = GeneralisedMean(power=2.5).double()
    expected = torch.zeros(3, 5, dtype=torch.float64)
    for image in range(3):
        for channel in range(5):
            values = [max(float(value), 1e-6) for value in features[image, channel].flatten()]
            expected[image, channel] = (sum(value**2.5 for value in values) / 8) ** (1 / 2.5)
    torch.testing.assert_close(pool(Maps(features, None)), expected)
    pool(Maps(features, None)).sum().backward()
    assert float(pool.p.grad.abs()) > 0
    positive = features.abs() + 0.1
    maps = Maps(positive, None)
    torch.testing.assert_close(GeneralisedMean(power=1.0).double()(maps), positive.mean(dim=(2, 3)))
    torch.testing.assert_close(
        GeneralisedMean(power=200.0).double()(maps), positive.amax(dim=(2, 3)), rtol=0.02, atol=0
    )
    assert GeneralisedMean().p.tolist() == [3]


def test_the_neck_keeps_its_shift_at_zero_and_normalises() -> None:
    torch.manual_seed(5)
    neck = BatchNormNeck(6, num_classes=4)
    features = (torch.randn(16, 6) * 5 + 2).requires_grad_()
    logits = neck.classifier(neck(features))
    assert logits.shape == (16, 4)
    logits.pow(2).sum().backward()
    assert neck.neck.bias.grad is None
    assert not neck.neck.bias.any()
    assert float(neck.neck.weight.grad.abs().sum()) > 0
    assert neck.classifier.bias is None
    after = neck(features)
    torch.testing.assert_close(after.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(after.var(0, correction=0), torch.ones(6), atol=1e-3, rtol=0)
    torch.manual_seed(6)
    assert float(BatchNormNeck(2048, 100).classifier.weight.detach().std()) == pytest.approx(0.001, rel=0.05)


def test_the_reid_network_retrieves_with_the_feature_after_the_neck() -> None:
    torch.manual_seed(7)
    network = build_network(plan_network(neck(9), last_stride=1, pooling="gem"))
    assert isinstance(network, ReidNetwork)
    network.eval()
    nn.init.normal_(network.head.neck.running_mean)
    nn.init.uniform_(network.head.neck.running_var, 0.5, 2)
    images = torch.randn(3, 3, 64, 32)
    with torch.no_grad():
        features, logits = network(images)
        embedded = network.embed(images)
    norm = network.head.neck
    expected = (features - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(embedded, expected)
    torch.testing.assert_close(logits, embedded @ network.head.classifier.weight.T)
    assert features.shape == (3, 32)
    assert logits.shape == (3, 9)


def test_the_contrastive_network_gives_unit_vectors_of_two_linear_layers() -> None:
    torch.manual_seed(8)
    network = build_network(plan_network(projection(16)))
    assert isinstance(network, ContrastiveNetwork)
    assert isinstance(network.head, Projection)
    network.eval()
    images = torch.randn(3, 3, 64, 32)
    with torch.no_grad():
        projected = network(images)
        hidden = network.embed(images) @ network.head.hidden.weight.T + network.head.hidden.bias
        expected = hidden.clamp(min=0) @ network.head.out.weight.T + network.head.out.bias
    torch.testing.assert_close(projected, expected / expected.pow(2).sum(1, keepdim=True).sqrt())
    torch.testing.assert_close(projected.norm(dim=1), torch.ones(3))
    assert network.head.hidden.weight.shape == (32, 32)
    assert not [name for name, module in network.head.named_modules() if isinstance(module, nn.BatchNorm1d)]


@pytest.mark.parametrize("arch", typing.get_args(ResNetArch))
def test_blocks_are_the_residual_blocks_in_their_order(arch: ResNetArch) -> None:
    with torch.device("meta"):
        trunk = ResNetTrunk(arch, width=4)
    names = {module: name for name, module in trunk.named_modules()}
    found = [names[block] for block in trunk.all_blocks()]
    depths = {"r18": (2, 2, 2, 2), "r50": (3, 4, 6, 3), "r101": (3, 4, 23, 3), "r152": (3, 8, 36, 3)}[arch]
    assert found == [f"layer{stage}.{block}" for stage, depth in enumerate(depths, 1) for block in range(depth)]
