"""The loss of a batch: each term alone, its definition, its gradients, and when the teacher runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsclora_cli.datasets.patches import Batch
from dsclora_cli.distillation.losses import AffinityLoss, DistillationLoss, affinity_distance
from dsclora_cli.models.features import FeatureExtractor, select_feature_maps
from dsclora_cli.models.lora import AdaptedNetwork, Adapters, parse_ranks
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.training.losses import detail_l1


def batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(torch.rand(2, 3, 6, 7, generator=generator), torch.rand(2, 3, 12, 14, generator=generator))


def student_and_loss(
    shift: float, rec: float = 1.0, ts: float = 1.0, ad: float = 1.0, positions: int = 0
) -> tuple[Adapters, DistillationLoss]:
    """Adapters for a base that is also the teacher; `shift` is the standard deviation of B."""
    torch.manual_seed(0)
    base = SPAN(SpanConfig(channels=5, blocks=2, scale=2)).eval()
    adapters = Adapters(base, parse_ranks(base, "paper"))
    for name, parameter in adapters.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(parameter, std=shift)
    taps = FeatureExtractor(base, select_feature_maps(base, ["block_*.*"]))
    features = AffinityLoss(ad, positions) if ad else None
    return adapters, DistillationLoss(AdaptedNetwork(taps, adapters), taps, F.mse_loss, rec, ts, features)


def gradients(adapters: Adapters, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*adapters.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("term", ["rec", "ts", "ad"])
@pytest.mark.parametrize("positions", [0, 10])
def test_each_term_alone_moves_the_adapters(term: str, positions: int) -> None:
    weights = {name: 3.0 * (name == term) for name in ("rec", "ts", "ad")}
    adapters, objective = student_and_loss(0.02, **weights, positions=positions)
    terms = objective(batch())
    assert list(terms) == [term]
    assert terms[term] > 0
    moved = {name for name, gradient in gradients(adapters, terms[term]).items() if bool(gradient.any())}
    every = {name for name, _ in adapters.named_parameters()}
    behind = {name for name in every if name.startswith(("conv_2", "upsampler"))}
    assert moved == (every - behind if term == "ad" else every)


def test_a_student_equal_to_the_teacher_gets_no_gradient_from_the_teacher_terms() -> None:
    adapters, objective = student_and_loss(0.0)
    terms = objective(batch())
    assert terms["rec"] > 0
    for term in ("ts", "ad"):
        assert terms[term].item() == 0
        assert not any(bool(gradient.any()) for gradient in gradients(adapters, terms[term]).values())


@pytest.mark.slow
def test_terms_equal_their_definitions_times_their_weights() -> None:
    _, objective = student_and_loss(0.02, rec=2.0, ts=3.0, ad=5.0)
    patches = batch()
    (output, taps), (target, teacher_taps) = objective.student(patches.lr), objective.teacher(patches.lr)
    terms = objective(patches)
    torch.testing.assert_close(terms["rec"], 2 * (output - patches.hr).square().mean())
    torch.testing.assert_close(terms["ts"], 3 * (output - target).abs().mean())
    distances = [affinity_distance(*pair) for pair in zip(taps, teacher_taps, strict=True)]
    assert len(distances) == 6
    torch.testing.assert_close(terms["ad"], 5 * sum(distances) / 6)


def test_the_spectrum_is_compared_with_the_teachers_output() -> None:
    _, objective = student_and_loss(0.02, ts=3.0, ad=0.0)
    objective, patches = replace(objective, spectrum=7.0, spectrum_block=4), batch()
    (output, _), (target, _) = objective.student(patches.lr), objective.teacher(patches.lr)
    assert list(objective(patches)) == ["rec", "ts", "spectrum"]
    torch.testing.assert_close(objective(patches)["spectrum"], 7 * detail_l1(output, target, 4))
    stored = replace(patches, teacher=torch.zeros_like(patches.hr))
    torch.testing.assert_close(objective(stored)["spectrum"], 7 * detail_l1(output, stored.teacher, 4))
    assert list(replace(objective, ts=0.0)(patches)) == ["rec"]


def test_a_stored_teacher_output_is_used_and_the_teacher_runs_only_for_feature_maps() -> None:
    calls = []
    _, objective = student_and_loss(0.02)
    teacher = objective.teacher

    def counted(lr: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert not torch.is_grad_enabled()
        calls.append(lr)
        return teacher(lr)

    stored = replace(batch(), teacher=torch.zeros(2, 3, 12, 14))
    objective = replace(objective, teacher=counted)
    expected = objective.student(stored.lr)[0].abs().mean()
    torch.testing.assert_close(objective(stored)["ts"], expected)
    assert len(calls) == 1  # for its feature maps
    assert list(replace(objective, features=None)(stored)) == ["rec", "ts"]
    assert list(replace(objective, features=None, ts=0.0)(batch())) == ["rec"]
    assert len(calls) == 1


def test_positions_depend_on_the_batch_alone() -> None:
    _, objective = student_and_loss(0.05, rec=0.0, ts=0.0, positions=5)
    first, again, other = (objective(batch(seed))["ad"].item() for seed in (0, 0, 1))
    assert first == again
    assert first != other
    _, every = student_and_loss(0.05, rec=0.0, ts=0.0, positions=42)
    assert every(batch())["ad"].item() == student_and_loss(0.05, rec=0.0, ts=0.0)[1](batch())["ad"].item()
