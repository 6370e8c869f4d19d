"""Optimizers by name, the learning rate, the moving average and mixed precision."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from dsclora_cli.recipe import OptimizerOptions, Recipe
from dsclora_cli.recipe_toml import resolve_defaults
from dsclora_cli.training.optim import EMA, SOAP, Precision, make_optimizer, rate_at


def _rates(steps: int, **options: object) -> list[float]:
    chosen = OptimizerOptions(learning_rate=1.0, warmup=0.1, **options)  # type: ignore[arg-type]
    return [rate_at(chosen, step, steps) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["cosine", "multistep", "constant"])
def test_warmup_raises_the_rate_linearly(schedule: str) -> None:
    assert _rates(100, schedule=schedule)[:11] == pytest.approx([*(0.1 * step for step in range(1, 11)), 1.0])


def test_cosine_falls_to_the_final_share() -> None:
    rates = _rates(100, schedule="cosine", final=0.2)

    assert rates[55] == pytest.approx(0.6)
    assert rates[99] == pytest.approx(0.2, abs=1e-3)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))


def test_multistep_falls_at_the_milestones() -> None:
    rates = _rates(100, schedule="multistep", milestones=(0.5, 0.75), gamma=0.1)

    assert rates[49:51] == pytest.approx([1.0, 0.1])
    assert rates[74:76] == pytest.approx([0.1, 0.01])


def test_a_run_of_one_step_uses_the_peak_rate() -> None:
    assert _rates(1) == [1.0]


def _options(name: str) -> OptimizerOptions:
    return resolve_defaults(Recipe(optimiser=OptimizerOptions(optimiser=name))).optimiser


@pytest.mark.parametrize(
    ("name", "kind", "betas"),
    [("adam", torch.optim.Adam, (0.9, 0.99)), ("adamw", torch.optim.AdamW, (0.9, 0.99)), ("soap", SOAP, (0.95, 0.97))],
)
def test_optimizers_by_name(name: str, kind: type, betas: tuple[float, float]) -> None:
    optimizer = make_optimizer(_options(name), nn.Linear(2, 2), {})

    assert type(optimizer) is kind
    assert all(group["betas"] == betas for group in optimizer.param_groups)


def test_only_trainable_parameters_get_a_group_with_their_scale() -> None:
    layer = nn.Linear(2, 3)
    layer.weight.requires_grad_(False)
    optimizer = make_optimizer(_options("adam"), layer, {"bias": 0.5, "weight": 7.0})

    (group,) = optimizer.param_groups
    assert group["params"][0] is layer.bias
    assert group["scale"] == 0.5


def test_the_average_copies_the_first_step_and_follows_later_steps_slowly() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = EMA(layer, 0.9)
    nn.init.constant_(layer.weight, 3.0)
    average.update(layer, 0)
    assert average.module.get_parameter("weight").item() == 3.0

    nn.init.constant_(layer.weight, 13.0)
    average.update(layer, 1000)
    assert average.module.get_parameter("weight").item() == pytest.approx(4.0)
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


def test_without_decay_the_average_equals_the_weights() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = EMA(layer, 0.0)
    nn.init.constant_(layer.weight, 3.0)
    average.update(layer, 50)

    assert average.module.get_parameter("weight").item() == 3.0


@pytest.mark.parametrize("has_bfloat16", [False, True])
@pytest.mark.parametrize("choice", ["auto", "bfloat16", "float16", "off"])
def test_a_cpu_computes_in_bfloat16_if_asked_and_able_and_else_in_float32(
    choice: str, has_bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": has_bfloat16}, raising=False
    )
    precision = Precision(choice, torch.device("cpu"))
    with precision.autocast():
        dtype = nn.Linear(2, 2)(torch.ones(1, 2)).dtype

    assert dtype == (torch.bfloat16 if choice == "bfloat16" and has_bfloat16 else torch.float32)
    assert not precision.scaler.is_enabled()
    if choice in {"auto", "off"} or dtype == torch.bfloat16:
        assert not precision.note
    else:
        assert f"--amp {choice} needs CUDA" in precision.note
