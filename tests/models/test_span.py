"""SPAN compared with the outputs of the original, in training form and merged form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsclora_cli.models.span import SPAN, Conv3XC, SpanConfig

GOLDEN = ("baboon_16x16", "ppt3_33x47", "zebra_64x64")


def explicit(conv: Conv3XC, x: Tensor) -> Tensor:
    """Compute `Conv3XC` as the paper writes it: pad, three convolutions in a row, plus the skip."""
    return conv.conv(F.pad(x, (1, 1, 1, 1))) + conv.sk(x)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_released_student_has_the_outputs_of_the_original(shared: Path, name: str) -> None:
    network = SPAN(SpanConfig())
    network.load_state_dict(torch.load(shared / "weights/team23_DSCF.pth", weights_only=True), strict=True)
    golden = np.load(shared / f"golden/{name}.npz")
    with torch.inference_mode():
        sr = network(torch.from_numpy(golden["lr"]).permute(2, 0, 1)[None].float() / 255)
    assert np.abs(sr[0].permute(1, 2, 0).numpy() - golden["sr"]).max() < 2e-5


def test_parameter_count_of_the_paper() -> None:
    assert sum(p.numel() for p in SPAN(SpanConfig(channels=26)).parameters()) == 130_828


@pytest.mark.parametrize(("channels", "blocks", "scale"), [(26, 6, 4), (8, 2, 3), (5, 1, 2)])
def test_the_output_is_scale_times_the_input_for_any_size(channels: int, blocks: int, scale: int) -> None:
    network = SPAN(SpanConfig(channels, blocks, scale))
    assert network(torch.zeros(2, 3, 5, 7)).shape == (2, 3, 5 * scale, 7 * scale)


def test_training_form_equals_its_explicit_form_in_output_and_gradients() -> None:
    torch.manual_seed(0)
    conv = Conv3XC(3, 5).double()
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    weights = torch.randn(2, 5, 6, 7, dtype=torch.float64)
    answers = []
    for run in (conv, lambda x: explicit(conv, x)):
        conv.zero_grad()
        y = run(x)
        (y * weights).sum().backward()
        answers.append((y.detach(), [p.grad.clone() for p in conv.parameters() if p.grad is not None]))
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-12, atol=1e-12)
    assert len(answers[0][1]) == 8


def test_the_merged_form_equals_the_training_form_and_leaves_it_unchanged() -> None:
    torch.manual_seed(1)
    network = SPAN(SpanConfig(channels=6, blocks=2, scale=2, expanded=True)).double()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    merged = network.merged()
    x = torch.rand(1, 3, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(merged(x), network(x), rtol=1e-11, atol=1e-11)
    assert not merged.config.expanded
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert merged.merged() is merged


def test_without_norm_the_picture_is_used_as_given() -> None:
    torch.manual_seed(2)
    network = SPAN(SpanConfig(channels=4, blocks=1, scale=2)).double()
    raw = SPAN(SpanConfig(channels=4, blocks=1, scale=2, norm=False)).double()
    raw.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(raw((x - network.mean) * 255), network(x))


@pytest.mark.parametrize("blocks", [1, 2, 6])
def test_the_declared_halo_is_the_receptive_field(blocks: int) -> None:
    network = SPAN(SpanConfig(channels=4, blocks=blocks, scale=2)).double()
    halo = network.config.descriptor.halo
    size = 2 * halo + 5
    x = torch.full((1, 3, size, size), 0.5, dtype=torch.float64, requires_grad=True)
    network(x)[0, :, size - 1 : size + 1, size - 1 : size + 1].sum().backward()
    assert x.grad is not None
    reach = x.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
    center = (size - 1) // 2
    assert (center - int(reach.min()), int(reach.max()) - center) == (halo, halo)


def in_order(x: Tensor, weight: Tensor, bias: Tensor, stride: object, padding: tuple[int, int], *_: object) -> Tensor:
    """Convolve by adding products in the order of channels: libraries choose an order for every number of channels."""
    height, width = x.shape[2:]
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    total = bias[:, None, None].expand(len(x), -1, height, width)
    for channel in range(weight.shape[1]):
        for row in range(weight.shape[2]):
            for column in range(weight.shape[3]):
                part = x[:, channel, None, row : row + height, column : column + width]
                total = total + part * weight[:, channel, row, column, None, None]
    return total


@pytest.mark.parametrize("expanded", [False, True])
def test_padded_channels_change_no_bit_of_the_output(expanded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    network = SPAN(SpanConfig(channels=26, blocks=2, scale=2, expanded=expanded)).merged()
    # 32 pixels: of a row that fills no whole vector, a library may compute the last values by another formula.
    padded, x = network.padded(8), torch.rand(1, 3, 4, 8)
    assert padded.config == SpanConfig(channels=32, blocks=2, scale=2)
    monkeypatch.setattr(F, "conv2d", in_order)
    with torch.inference_mode():
        assert torch.equal(padded(x), network(x))


def test_padded_channels_stay_zero_and_change_no_more_than_the_order_of_sums() -> None:
    torch.manual_seed(3)
    network = SPAN(SpanConfig(channels=26, blocks=3, scale=4)).eval().double()
    padded, features = network.padded(8), list[Tensor]()
    x = torch.rand(2, 3, 19, 22, dtype=torch.float64)

    def keep(_: str, feature_map: Tensor) -> Tensor:
        features.append(feature_map)
        return feature_map

    torch.testing.assert_close(padded(x, keep), network(x), rtol=1e-11, atol=1e-11)
    assert len(features) == len(network.feature_names)
    assert all(len(each[0]) == 32 and not each[:, 26:].any() for each in features)
    assert padded.training is network.training is False


def test_a_network_of_fitting_width_is_not_padded() -> None:
    network = SPAN(SpanConfig(channels=8, blocks=1, scale=2))
    assert network.padded(8) is network
