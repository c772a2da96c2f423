"""Convolutions on a CPU: channels last where nothing has to keep its bits, and right answers in bfloat16."""

import pytest
import torch
from torch import nn
from torch.profiler import profile

from lupctl.core.training.nets.resnet.layout import StridedConv2d, StridedPointConv2d, set_order
from lupctl.core.training.nets.resnet.norms import set_norm_groups
from lupctl.core.training.nets.resnet.trunk import ResNetTrunk

LAST = torch.channels_last


@pytest.mark.parametrize(
    ("training", "bf16", "free", "is_last"),
    [
        (True, False, False, False),
        (True, False, True, True),
        (True, True, False, True),
        (False, False, False, True),
        (False, True, False, True),
    ],
)
def test_training_in_float32_keeps_channels_first_unless_it_is_free(
    training: bool, bf16: bool, free: bool, is_last: bool
) -> None:
    torch.manual_seed(1)
    images, trunk = torch.randn(4, 3, 64, 32), ResNetTrunk("r18", width=4).train(training)
    if free:
        set_order(trunk, "auto")
    set_norm_groups(trunk, 2)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        assert trunk.lay_out(images).is_contiguous(memory_format=LAST) == is_last
        assert trunk(images).map.is_contiguous(memory_format=LAST) == is_last


def test_features_are_those_of_channels_first() -> None:
    """Unit features to 2e-6; the forward pass of `dump` in float32 is that of before but for its rounding."""
    torch.manual_seed(1)
    trunk = ResNetTrunk("r50", width=8, last_stride=1).eval()
    images = torch.randn(4, 3, 64, 32)
    with torch.no_grad():
        last = trunk(images).map.mean((2, 3))
        trunk.training = True  # of the trunk alone: it takes images as they come, and its norms are in evaluation
        plain = trunk(images).map.mean((2, 3))
    one, other = (nn.functional.normalize(features) for features in (last, plain))
    assert (one - other).abs().max() < 2e-6


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [16, 64])
def test_a_strided_convolution_is_right_in_bf16(kernel: int, width: int, channels: int) -> None:
    """Forward, and both gradients, beside float32 on the same rounded numbers; memory before it is spoiled."""
    torch.manual_seed(2)
    conv = StridedConv2d(channels, channels, kernel, stride=2, padding=kernel // 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(conv.weight.bfloat16())
    images = torch.randn(16, channels, 4, width).bfloat16().contiguous(memory_format=LAST)
    one, other = images.clone().requires_grad_(), images.float().requires_grad_()
    spoiled = [torch.full((conv.weight.numel(),), 1e30, dtype=kind) for kind in (torch.bfloat16, torch.float32)]
    spoiled.append(torch.full((one.numel(),), 1e30, dtype=torch.bfloat16))
    del spoiled
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(one)
    assert out.dtype == torch.bfloat16
    wanted = torch.randn(out.shape).bfloat16()
    out.backward(wanted)
    (gradient,) = [conv.weight.grad.clone()]
    conv.weight.grad = None
    expected = nn.functional.conv2d(other, conv.weight, stride=2, padding=kernel // 2)
    expected.backward(wanted.float())
    for found, right in ((out, expected), (one.grad, other.grad), (gradient, conv.weight.grad)):
        assert (found.float() - right).abs().max() <= 0.02 * right.abs().max()


@pytest.mark.parametrize(("channels", "thins"), [(4, True), (8, True), (16, False)])
def test_a_strided_point_convolution_of_few_channels_is_right_with_channels_last(channels: int, thins: bool) -> None:
    """As the definition has it, forward and in both gradients; oneDNN itself is never given such a stride."""
    torch.manual_seed(2)
    conv = StridedPointConv2d(channels, 8, 1, stride=2, bias=False)
    first = torch.randn(8, channels, 9, 5)
    last = first.contiguous(memory_format=LAST).requires_grad_()
    with profile() as profiler:
        out = conv(last)
    out.sum().backward()
    with profile() as ahead, torch.no_grad():
        assert torch.equal(conv(last), out)
    assert ("aten::slice" in {event.key for event in ahead.key_averages()}) == thins, "looking ahead has the same bits"
    with profile() as alone, torch.no_grad():
        conv.eval()(last)
    assert "aten::slice" not in {event.key for event in alone.key_averages()}, "what is exported has one convolution"
    weight = conv.weight.detach()[:, :, 0, 0]
    expected = torch.einsum("bchw,dc->bdhw", first[:, :, ::2, ::2], weight)
    assert last.grad is not None
    assert conv.weight.grad is not None
    torch.testing.assert_close(out, expected)
    spread = torch.zeros_like(first)
    spread[:, :, ::2, ::2] = weight.sum(0)[None, :, None, None]
    torch.testing.assert_close(last.grad, spread)
    torch.testing.assert_close(conv.weight.grad[:, :, 0, 0], first[:, :, ::2, ::2].sum((0, 2, 3)).expand(8, -1))
    assert ("aten::slice" in {event.key for event in profiler.key_averages()}) == thins
