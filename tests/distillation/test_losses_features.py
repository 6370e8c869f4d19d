"""Losses between feature maps: equal to independent NumPy code; gradients, order of samples, equal networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsclora_cli.distillation.losses import AffinityLoss, ContrastiveLoss, DistillBatch, FeatureLoss
from dsclora_cli.errors import UsageError

Array = NDArray[np.float64]
TAPS, SAMPLES = 3, 4


def random_batch(seed: int = 0, teacher_channels: int = 5) -> DistillBatch:
    """Random float64 tensors. The teacher's require gradients too, so that a test can see that none arrives."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return DistillBatch(
        lr=random(SAMPLES, 3, 4, 6),
        hr=random(SAMPLES, 3, 8, 12),
        output=random(SAMPLES, 3, 8, 12).requires_grad_(),
        teacher_output=random(SAMPLES, 3, 8, 12).requires_grad_(),
        maps=tuple(random(SAMPLES, 5, 4, 6).requires_grad_() for _ in range(TAPS)),
        teacher_maps=tuple(random(SAMPLES, teacher_channels, 4, 6).requires_grad_() for _ in range(TAPS)),
    )


def to_numpy(tensors: tuple[Tensor, ...]) -> list[Array]:
    return [tensor.detach().numpy() for tensor in tensors]


def apart(first: Array, second: Array, distance: str) -> float:
    """Between the maps of two samples."""
    if distance == "cosine":
        return float(1 - np.sum(first * second) / np.sqrt(np.sum(first**2) * np.sum(second**2)))
    return float(np.mean(np.abs(first - second) ** {"l1": 1, "l2": 2}[distance]))


def euclidean(given: DistillBatch, term: FeatureLoss) -> float:
    values = []
    for student, teacher in zip(to_numpy(given.maps), to_numpy(given.teacher_maps), strict=True):
        values += [apart(student[i], teacher[i], term.distance) for i in range(SAMPLES)]
    return term.weight * float(np.mean(values))


def affinity(given: DistillBatch, term: AffinityLoss) -> float:
    total = 0.0
    for pair in zip(to_numpy(given.maps), to_numpy(given.teacher_maps), strict=True):
        differences = []
        for i in range(SAMPLES):
            both = []
            for each in pair:
                flat = each[i].reshape(len(each[i]), -1)
                flat = flat / (np.linalg.norm(flat, axis=0) + 1e-8)
                both.append(flat.T @ flat)
            differences.append(np.mean(np.abs(both[0] - both[1])))
        total += float(np.mean(differences))
    return term.weight * total / (1 if term.summed else TAPS)


def contrast(given: DistillBatch, term: ContrastiveLoss) -> float:
    values = []
    hr, outputs = given.hr.numpy(), to_numpy((given.output, given.teacher_output))
    errors = [[float(np.mean(np.abs(output[i] - hr[i]))) for i in range(SAMPLES)] for output in outputs]
    margin = term.margin if term.condition == "margin" else 0.0
    for student, teacher in zip(to_numpy(given.maps), to_numpy(given.teacher_maps), strict=True):
        others = teacher if term.negatives == "teacher" else student
        for i in range(SAMPLES):
            near = apart(student[i], teacher[i], term.distance)
            far = [apart(student[i], others[k], term.distance) for k in range(SAMPLES) if k != i]
            if term.form == "infonce":
                shares = np.exp(-np.array([near, *far]) / term.temperature)
                value = float(-np.log(shares[0] / np.sum(shares)))
            else:
                value = near / (float({"sums": np.sum, "means": np.mean}[term.form](far)) + 1e-8)
            values.append(value if term.condition == "always" or errors[1][i] + margin < errors[0][i] else 0.0)
    return term.weight * float(np.mean(values))


CONTRASTS = [
    ContrastiveLoss(2.0),
    ContrastiveLoss(2.0, distance="l1"),
    ContrastiveLoss(2.0, form="means", distance="l2", condition="always"),
    ContrastiveLoss(0.5, form="infonce", temperature=0.3, negatives="student"),
    ContrastiveLoss(0.5, form="infonce", distance="cosine", condition="always"),
    ContrastiveLoss(1.0, distance="cosine", negatives="student", condition="margin", margin=0.02),
]
CASES = [
    (FeatureLoss(3.0), euclidean),
    (FeatureLoss(3.0, "l1"), euclidean),
    (FeatureLoss(0.5, "cosine"), euclidean),
    (AffinityLoss(10.0, summed=True, name="fakd"), affinity),
    (AffinityLoss(2.0), affinity),
    *((term, contrast) for term in CONTRASTS),
]


@pytest.mark.parametrize(("term", "by_hand"), CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_value_equals_independent_code(term, by_hand, seed: int) -> None:  # type: ignore[no-untyped-def]
    given = random_batch(seed)
    name, value = next(iter(term(given).items()))
    assert name == {euclidean: "fd", affinity: getattr(term, "name", ""), contrast: "facd"}[by_hand]
    assert value.item() == pytest.approx(by_hand(given, term), rel=1e-10)


@pytest.mark.parametrize("term", [case[0] for case in CASES])
def test_only_the_student_gets_gradients(term) -> None:  # type: ignore[no-untyped-def]
    given = random_batch()
    loss = next(iter(term(given).values()))
    student = torch.autograd.grad(loss, given.maps, retain_graph=True)
    assert all(bool((gradient.flatten(1) != 0).any()) for gradient in student)
    teacher = torch.autograd.grad(loss, (*given.teacher_maps, given.teacher_output), allow_unused=True)
    assert not any(gradient is not None and bool(gradient.any()) for gradient in teacher)


@pytest.mark.parametrize("term", [case[0] for case in CASES])
def test_order_of_samples_does_not_matter(term) -> None:  # type: ignore[no-untyped-def]
    given, order = random_batch(), torch.tensor([2, 0, 3, 1])
    turned = DistillBatch(
        *(each[order] for each in (given.lr, given.hr, given.output, given.teacher_output)),
        *(tuple(each[order] for each in maps) for maps in (given.maps, given.teacher_maps)),
    )
    for name, value in term(given).items():
        torch.testing.assert_close(term(turned)[name], value)


@pytest.mark.parametrize("term", [case[0] for case in CASES])
def test_loss_of_a_student_equal_to_the_teacher_is_zero_except_for_infonce(term) -> None:  # type: ignore[no-untyped-def]
    given = random_batch()
    given = replace(given, maps=tuple(each.detach().clone().requires_grad_() for each in given.teacher_maps))
    if isinstance(term, ContrastiveLoss):
        term = replace(term, condition="always")
    value = next(iter(term(given).values())).item()
    if isinstance(term, ContrastiveLoss) and term.form == "infonce":
        assert value == pytest.approx(contrast(given, term))
        assert value > 0
    else:
        assert value == pytest.approx(0, abs=1e-12)


def test_affinities_allow_different_channels() -> None:
    given = random_batch(teacher_channels=9)
    term = AffinityLoss(1.0, summed=True)
    assert term(given)["ad"].item() == pytest.approx(affinity(given, term), rel=1e-10)


def test_only_patches_where_the_teacher_is_better_count() -> None:
    hr = torch.zeros(SAMPLES, 3, 8, 12, dtype=torch.float64)
    levels = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).view(4, 1, 1, 1)
    given = replace(random_batch(), hr=hr, output=hr + levels, teacher_output=hr + 0.25)
    shares = {"better": 0.5, "always": 1.0, "margin": 0.25}
    for condition, share in shares.items():
        term = ContrastiveLoss(1.0, condition=condition, margin=0.1)
        assert term(given)["passed"].item() == share
    assert term(replace(given, teacher_output=hr + 1.0))["facd"].item() == 0


def test_half_precision_maps_are_compared_in_float32() -> None:
    given = random_batch()
    halves = replace(
        given,
        maps=tuple(each.detach().half().requires_grad_() for each in given.maps),
        teacher_maps=tuple(each.detach().half() for each in given.teacher_maps),
    )
    for term in (FeatureLoss(1.0), ContrastiveLoss(1.0)):
        value = next(iter(term(halves).values()))
        assert value.dtype in {torch.float32, torch.float64}
        assert value.item() == pytest.approx(next(iter(term(given).values())).item(), rel=1e-2)


def test_a_single_patch_is_refused_by_the_contrastive_loss() -> None:
    given = random_batch()
    alone = DistillBatch(
        *(each[:1] for each in (given.lr, given.hr, given.output, given.teacher_output)),
        *(tuple(each[:1] for each in maps) for maps in (given.maps, given.teacher_maps)),
    )
    with pytest.raises(UsageError, match=r"compares each patch with other patches.*raise --batch"):
        ContrastiveLoss(1.0)(alone)
