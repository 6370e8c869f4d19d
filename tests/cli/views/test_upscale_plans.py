"""Lines of `dsclora upscale --dry-run`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsclora_cli.cli.views.upscale_plans import show_plans
from dsclora_cli.upscaling.dry_run import PlannedFile


def test_a_plan_names_the_reason_for_which_auto_selected_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    plan = PlannedFile("a.jpg", "upscale", "a_x4.jpg", (12, 9), (48, 36), passes=(4,), model="dsclora-x4-photo")
    assert show_plans([plan, replace(plan, choice="a JPEG of quality 50, below 90")], as_json=False) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "12x9" in line] == [
        "  12x9 -> 48x36, x4",
        "  12x9 -> 48x36, x4 with dsclora-x4-photo (a JPEG of quality 50, below 90)",
    ]
