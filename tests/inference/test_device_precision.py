"""TF32 off inside `full_float32` and restored when the last user leaves; channels for tensor cores."""

from __future__ import annotations

import pytest
import torch

from dsclora_cli.inference.device import channel_multiple, full_float32


def tf32_inside(fail: bool) -> bool:
    with full_float32():
        inside = torch.backends.cudnn.allow_tf32
        if fail:
            raise KeyError
    return inside


@pytest.mark.parametrize("before", [True, False])
def test_tf32_is_restored_even_after_an_error(monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    assert tf32_inside(fail=False) is False
    with pytest.raises(KeyError):
        tf32_inside(fail=True)
    assert torch.backends.cudnn.allow_tf32 is before


def test_tf32_stays_off_until_the_last_user_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with full_float32():
        assert tf32_inside(fail=False) is False
        assert torch.backends.cudnn.allow_tf32 is False
    assert torch.backends.cudnn.allow_tf32 is True


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [("cuda", torch.float16, 8), ("cuda", torch.float32, 1), ("mps", torch.float32, 1), ("cpu", torch.float32, 1)],
)
def test_only_tensor_cores_want_eight_channels(device: str, dtype: torch.dtype, expected: int) -> None:
    assert channel_multiple(torch.device(device), dtype) == expected
