"""TF32 is off inside and what it was outside, whatever happens."""

from __future__ import annotations

import pytest
import torch

from dsclora_cli.inference.device import full_float32


def tf32_inside(fail: bool) -> bool:
    with full_float32():
        inside = torch.backends.cudnn.allow_tf32
        if fail:
            raise KeyError
    return inside


@pytest.mark.parametrize("before", [True, False])
def test_tf32_comes_back(monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    assert tf32_inside(fail=False) is False
    with pytest.raises(KeyError):
        tf32_inside(fail=True)
    assert torch.backends.cudnn.allow_tf32 is before
