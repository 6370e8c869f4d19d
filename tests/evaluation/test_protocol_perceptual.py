"""Extra metrics, with a stand-in for pyiqa, which needs a torchvision build that is not always to be had."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dsclora_cli.errors import UsageError
from dsclora_cli.evaluation.protocol import open_metrics


class FakeMetric:
    """The difference of two tensors' means; without a reference the mean."""

    def __init__(self, mode: str) -> None:
        self.metric_mode = mode

    def __call__(self, result: torch.Tensor, *truth: torch.Tensor) -> torch.Tensor:
        assert result.shape[:2] == (1, 3) and result.min() >= 0 and result.max() <= 1
        assert len(truth) == (self.metric_mode == "FR")
        return result.mean() - sum(each.mean() for each in truth)


@pytest.fixture
def pyiqa(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = {"lpips": "FR", "brisque": "NR"}
    fake = SimpleNamespace(list_models=lambda: list(modes), create_metric=lambda name, device: FakeMetric(modes[name]))
    monkeypatch.setitem(sys.modules, "pyiqa", fake)


@pytest.mark.usefixtures("pyiqa")
def test_metrics_with_and_without_a_reference() -> None:
    metrics = open_metrics(["lpips", "brisque"], "cpu", 4)
    result, truth = np.full((5, 7, 3), 51, np.uint8), np.full((5, 7, 3), 255, np.uint8)
    assert metrics["lpips"](result, truth) == pytest.approx(0.2 - 1)
    assert metrics["brisque"](result, truth) == pytest.approx(0.2)


@pytest.mark.usefixtures("pyiqa")
def test_an_unknown_name_lists_all_metrics() -> None:
    with pytest.raises(UsageError, match=r"pyiqa has no metric 'lips' \(choose one of lpips, brisque\)"):
        open_metrics(["lips"], "cpu", 4)


def test_a_missing_package_names_the_command_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(UsageError, match=r'--metric lpips needs pyiqa.*pip install "dsclora\[metrics\]"'):
        open_metrics(["lpips"], "cpu", 4)


def test_without_a_name_pyiqa_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    assert open_metrics([], "cpu", 4) == {}
