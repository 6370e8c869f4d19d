"""Shell completion, asked as bash asks: by environment variables, with the answer on stdout."""

from __future__ import annotations

import pytest

from dsclora_cli.cli import completion
from dsclora_cli.cli.app import main
from dsclora_cli.weights.catalog import load_catalog


@pytest.fixture
def complete(monkeypatch, capsys):
    def run(line: str) -> list[str]:
        monkeypatch.setenv("_DSCLORA_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        assert main([]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out.split()

    monkeypatch.setattr("sys.argv", ["dsclora"])
    return run


@pytest.mark.parametrize(
    "line",
    [
        *("upscale -m dsclora-x", "eval --model dsclora-x", "models info dsclora-x", "models fetch dsclora-x"),
        *("distill --base dsclora-x", "distill --teacher dsclora-x", "train --init dsclora-x", "merge dsclora-x"),
    ],
)
def test_models_are_completed_wherever_a_model_is_named(complete, line) -> None:
    assert complete(f"dsclora {line}") == [name for name in load_catalog().entries if name.startswith("dsclora-x")]


def test_commands_and_sets_are_completed(complete) -> None:
    assert complete("dsclora mod") == ["models"]
    assert complete("dsclora models ver") == ["verify"]
    assert complete("dsclora eval --dataset Set1") == ["Set14"]


def test_devices_are_those_that_the_machine_seems_to_have(complete, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(completion, "_NVIDIA", tmp_path / "absent")
    assert complete("dsclora upscale --device c") == ["cpu"]
    for gpu in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "gpus" / gpu).mkdir(parents=True)
    monkeypatch.setattr(completion, "_NVIDIA", tmp_path / "gpus")
    assert complete("dsclora upscale --device cu") == ["cuda", "cuda:0", "cuda:1"]
    assert complete("dsclora upscale --device cuda:0,cuda:") == ["cuda:0,cuda:0", "cuda:0,cuda:1"]
    assert complete("dsclora train --device cuda:") == ["cuda:0", "cuda:1"]


def test_a_broken_catalog_completes_nothing_and_prints_nothing(complete, private_folders) -> None:
    (private_folders / "config").mkdir()
    (private_folders / "config" / "weights.toml").write_text("[weights")
    assert complete("dsclora models info ds") == []
