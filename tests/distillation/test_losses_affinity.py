"""The affinity distance in strips equals the distance of whole matrices and an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dsclora_cli.distillation import losses
from dsclora_cli.distillation.losses import affinity_distance


def maps(channels: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, channels, 4, 7, dtype=dtype, generator=torch.Generator().manual_seed(channels))


def by_loops(student: np.ndarray, teacher: np.ndarray) -> float:
    """The definition, position by position."""
    total, images = 0.0, len(student)
    for image in range(images):
        affinities = []
        for features in (student[image], teacher[image]):
            columns = [features[:, y, x] for y in range(features.shape[1]) for x in range(features.shape[2])]
            columns = [column / (np.sqrt(np.sum(column**2)) + 1e-8) for column in columns]
            affinities.append(np.array([[np.dot(a, b) for b in columns] for a in columns]))
        total += np.mean(np.abs(affinities[0] - affinities[1]))
    return total / images


def whole(student: Tensor, teacher: Tensor) -> Tensor:
    """The definition with whole matrices, left to autograd."""
    affinities = []
    for features in (student.flatten(2), teacher.flatten(2)):
        unit = features / (features.norm(dim=1, keepdim=True) + 1e-8)
        affinities.append(unit.mT @ unit)
    return (affinities[0] - affinities[1]).abs().mean()


def gradient(distance: Tensor, student: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(distance, student)
    return found


@pytest.mark.parametrize("chunk", [1, 3, 14, 28, 100])
def test_strips_give_value_and_gradient_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(losses, "_CHUNK", chunk)
    student, teacher = maps(5).requires_grad_(), maps(3)
    found, expected = affinity_distance(student, teacher), whole(student, teacher)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(found, student), gradient(expected, student), rtol=1e-10, atol=1e-14)


def test_value_equals_numpy_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK", 9)
    student, teacher = maps(5), maps(3)
    expected = by_loops(student.numpy(), teacher.numpy())
    assert float(affinity_distance(student, teacher)) == pytest.approx(expected, rel=1e-12)
    assert float(affinity_distance(student.float(), teacher.float())) == pytest.approx(expected, rel=1e-5)


def test_gradient_equals_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK", 5)
    student, teacher = maps(3)[:1].requires_grad_(), maps(4)[:1]
    assert torch.autograd.gradcheck(lambda s: affinity_distance(s, teacher) * 3, student)


def test_sampled_positions_select_rows_and_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK", 2)
    student, teacher = maps(5).requires_grad_(), maps(3)
    positions = torch.tensor([20, 3, 11])
    found = affinity_distance(student, teacher, positions)
    expected = whole(student.flatten(2)[:, :, None, positions], teacher.flatten(2)[:, :, None, positions])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(found, student), gradient(expected, student), rtol=1e-10, atol=1e-14)


def test_equal_maps_have_distance_and_gradient_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK", 9)
    student = maps(5, torch.float32).requires_grad_()
    distance = affinity_distance(student, student.detach().clone())
    assert distance.item() == 0
    assert not gradient(distance, student).any()


def test_the_teacher_gets_no_gradient_and_scale_does_not_matter() -> None:
    student, teacher = maps(5).requires_grad_(), maps(3).requires_grad_()
    distance = affinity_distance(student, teacher)
    distance.backward()
    assert teacher.grad is None
    torch.testing.assert_close(affinity_distance(student * 7, teacher / 3), distance)


def test_computes_in_float32_under_autocast() -> None:
    student, teacher = maps(5, torch.float32), maps(3, torch.float32)
    expected = affinity_distance(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(affinity_distance(student, teacher), expected)
    assert affinity_distance(student.bfloat16(), teacher.bfloat16()).dtype == torch.float32


@pytest.mark.slow
def test_no_tensor_is_larger_than_a_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            nonlocal largest
            result = function(*arguments, **(named or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    monkeypatch.setattr(losses, "_CHUNK", 4)
    student = torch.rand(1, 2, 16, 16, requires_grad=True)
    with Watch():
        affinity_distance(student, torch.rand(1, 2, 16, 16)).backward()
    assert largest == 4 * 256  # of the 256 * 256 of one affinity
