"""The SOAP optimizer: rotated problems, bounded steps, saved state."""

import copy

import pytest
import torch
from torch import Tensor, nn

from dsclora_cli.inference.device import no_subnormals
from dsclora_cli.training import optim
from dsclora_cli.training.optim import SOAP

BETAS = (0.95, 0.97)  # the defaults of a recipe


def _rotation(size: int, seed: int) -> Tensor:
    matrix = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(matrix)[0]


def _descend(optimizer: str, left: Tensor, right: Tensor, steps: int) -> list[float]:
    """Return the losses on a stiff quadratic function with axes rotated by `left` and `right`."""
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    stiffness = torch.logspace(0, 4, 20, dtype=torch.float64)[order].view(4, 5)
    weight = nn.Parameter(left.T @ torch.ones(4, 5, dtype=torch.float64) @ right)
    steps_taken = SOAP([weight], lr=0.05, betas=BETAS) if optimizer == "soap" else torch.optim.Adam([weight], lr=0.05)
    losses = []
    for _ in range(steps):
        loss = (stiffness * (left @ weight @ right.T) ** 2).sum()
        steps_taken.zero_grad()
        loss.backward()
        steps_taken.step()
        losses.append(loss.item())
    return losses


def test_soap_does_not_depend_on_a_rotation_of_the_problem() -> None:
    plain = _descend("soap", torch.eye(4, dtype=torch.float64), torch.eye(5, dtype=torch.float64), 60)
    turned = _descend("soap", _rotation(4, 1), _rotation(5, 2), 60)

    assert turned == pytest.approx(plain, rel=1e-6)


def test_soap_beats_adam_on_a_rotated_stiff_problem() -> None:
    axes = _rotation(4, 1), _rotation(5, 2)

    assert _descend("soap", *axes, 300)[-1] < 0.1 * _descend("adam", *axes, 300)[-1]


def test_vectors_take_the_steps_of_adam() -> None:
    start = torch.linspace(-1, 1, 8)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    soap_steps = SOAP([ours], lr=0.1, betas=(0.9, 0.99))
    soap_steps.param_groups[0]["eps"] = 1e-8  # as small as Adam's
    adam_steps = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.99), eps=1e-8)
    for step in range(20):
        ours.grad = torch.sin(start * (step + 1))
        theirs.grad = ours.grad.clone()
        soap_steps.step()
        if step:
            adam_steps.step()

    assert torch.allclose(ours, theirs, atol=1e-6)


def test_sides_above_the_limit_have_no_basis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "_MAX_SIDE", 8)
    weight = nn.Parameter(torch.ones(4, 3, 2, 2))
    optimizer = SOAP([weight], lr=0.1, betas=BETAS)
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        optimizer.step()

    assert optimizer.state[weight]["left_basis"].shape == (4, 4)
    assert "right" not in optimizer.state[weight]
    assert (weight < 1).all()


def test_a_saved_state_resumes_to_the_same_bits() -> None:
    torch.manual_seed(1)
    through = nn.Conv2d(3, 4, 3)
    images = torch.randn(6, 2, 3, 5, 5)
    optimizer = SOAP(through.parameters(), lr=0.01, betas=BETAS)
    for image in images[:3]:
        _step(through, optimizer, image)
    resumed = copy.deepcopy(through)
    continued = SOAP(resumed.parameters(), lr=0.01, betas=BETAS)
    continued.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for image in images[3:]:
        _step(through, optimizer, image)
        _step(resumed, continued, image)

    assert torch.equal(through.weight, resumed.weight)
    assert torch.equal(through.bias, resumed.bias)  # type: ignore[arg-type]


def _step(network: nn.Module, optimizer: SOAP, image: Tensor) -> None:
    optimizer.zero_grad()
    (network(image) ** 2).mean().backward()
    optimizer.step()


def test_steps_stay_bounded_while_gradients_rotate() -> None:
    weight = nn.Parameter(torch.zeros(6, 6))
    optimizer = SOAP([weight], lr=1.0, betas=BETAS)
    longest = 0.0
    with no_subnormals():
        for step in range(200):
            spread = torch.diag(torch.tensor([1.0, 1e-3, 1e-6, 1e-12, 0.0, 0.0])[torch.arange(6).roll(step // 20)])
            before = weight.detach().clone()
            weight.grad = _rotation(6, step // 40).float() @ spread @ _rotation(6, 90 + step // 30).float()
            optimizer.step()
            longest = max(longest, (weight - before).norm().item())

    assert 1 < longest <= 2 * 6


@pytest.mark.parametrize("size", [0.0, 1e-22])
def test_parameters_with_zero_gradients_do_not_move(size: float) -> None:
    weight = nn.Parameter(torch.ones(4, 5))
    optimizer = SOAP([weight], lr=1.0, betas=BETAS)
    for step in range(20):
        weight.grad = torch.randn(4, 5, generator=torch.Generator().manual_seed(step)) * size
        optimizer.step()

    assert torch.allclose(weight, torch.ones(4, 5), atol=1e-6)
