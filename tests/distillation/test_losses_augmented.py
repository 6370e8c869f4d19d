"""AugKD: the loss equals independent NumPy code, moves the student only, and draws the same numbers again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsclora_cli.datasets.patches import Batch
from dsclora_cli.distillation.losses import AugmentedLoss, DistillationLoss, DistillBatch
from dsclora_cli.models.edsr import EDSR, EdsrConfig
from dsclora_cli.models.features import FeatureExtractor

SCALE, SIZE, SAMPLES = 2, 8, 5
SHALLOW, DEEP = torch.tensor([0.5, 0.8], dtype=torch.float64)  # student and teacher
Array = NDArray[np.float64]


def network(factor: Tensor):
    """A network of one number that is neither symmetric nor indifferent to inverted colors: x2, nearest pixels."""

    def forward(x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        ramp = torch.arange(x.shape[3] * SCALE, dtype=x.dtype) / 10
        return factor * x.repeat_interleave(SCALE, 2).repeat_interleave(SCALE, 3).square() + ramp, ()

    return forward


def by_hand(x: Array, factor: float) -> Array:
    """The same network for one picture `(3, H, W)`."""
    return factor * np.kron(x, np.ones((1, SCALE, SCALE))) ** 2 + np.arange(x.shape[2] * SCALE) / 10


def given(factor: Tensor, seed: int = 0) -> DistillBatch:
    generator = torch.Generator().manual_seed(seed)
    lr, hr = (
        torch.rand(SAMPLES, 3, side, side, generator=generator, dtype=torch.float64) for side in (SIZE, SIZE * SCALE)
    )
    output, target = network(factor)(lr)[0], network(DEEP)(lr)[0]
    return DistillBatch(lr, hr, output, target, (), (), network(factor), network(DEEP))


def expected(batch: DistillBatch, term: AugmentedLoss, factor: float) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(round(float(batch.lr.sum() * 255)))
    top, left = torch.randint(SIZE * (SCALE - 1) + 1, (2,), generator=generator).tolist()
    chosen = torch.rand(SAMPLES, 4, generator=generator).numpy() < term.share
    near, far = [], []
    for index in range(SAMPLES):
        part = batch.hr[index, :, top : top + SIZE, left : left + SIZE].numpy()
        invert, rows, columns, transpose = chosen[index]
        x = 1 - part if invert else part
        x = x[:, ::-1] if rows else x
        x = x[:, :, ::-1] if columns else x
        x = np.swapaxes(x, 1, 2) if transpose else x
        y = by_hand(x, factor)
        y = np.swapaxes(y, 1, 2) if transpose else y
        y = y[:, :, ::-1] if columns else y
        y = y[:, ::-1] if rows else y
        y = 1 - y if invert else y
        near.append(np.abs(y - by_hand(part, 0.8)).mean())
        small = reduced(batch.lr[index].numpy())
        again = by_hand(small, factor)
        far.append(np.abs(again - batch.lr[index].numpy()).mean() + np.abs(again - by_hand(small, 0.8)).mean())
    return term.weight * float(np.mean(near)), term.weight * float(np.mean(far))


def reduced(picture: Array) -> Array:
    """Half the size by Keys' cubic (a = -0.5), stretched by two, with weights normalised at the border."""
    weights = np.zeros((SIZE // 2, SIZE))
    for row in range(SIZE // 2):
        for column in range(SIZE):
            t = abs(column + 0.5 - 2 * (row + 0.5)) / 2
            weights[row, column] = (
                1.5 * t**3 - 2.5 * t**2 + 1 if t < 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0
            )
    weights /= weights.sum(1, keepdims=True)
    return np.clip(np.einsum("ra,cab,sb->crs", weights, picture, weights), 0, 1)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_value_equals_independent_code(share: float, seed: int) -> None:
    batch, term = given(SHALLOW, seed), AugmentedLoss(0.7, share)
    found = term(batch)
    assert tuple(value.item() for value in found.values()) == pytest.approx(expected(batch, term, 0.5), rel=1e-9)
    assert list(found) == ["zoom_in", "zoom_out"]
    assert term(batch) == found  # the same pixels draw the same numbers
    assert term(replace(batch, lr=batch.lr + 1e-3)) != found


def test_only_the_student_gets_gradients_and_every_layer_moves() -> None:
    torch.manual_seed(0)
    student, teacher = (EDSR(EdsrConfig(channels=4, blocks=1, scale=2)) for _ in range(2))
    for network in (student, teacher):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    forwards = (FeatureExtractor(network, ()) for network in (student, teacher))
    loss = DistillationLoss(*forwards, torch.nn.functional.l1_loss, rec=0, ts=0, features=AugmentedLoss(1.0))
    terms = loss(Batch(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)))
    assert set(terms) == {"zoom_in", "zoom_out"}
    for term in terms.values():
        student.zero_grad()
        torch.autograd.backward(term, retain_graph=True)
        assert all(bool(each.grad.any()) for each in student.parameters() if each.requires_grad)
        assert not any(each.grad is not None and bool(each.grad.any()) for each in teacher.parameters())
