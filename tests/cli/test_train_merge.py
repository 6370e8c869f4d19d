"""`dsclora merge`: the merged file is the base with the adapter, and refused merges write nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dsclora_cli.models.lora import Adapters, merge_adapters, parse_ranks
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.adapters import save_adapters
from dsclora_cli.weights.checkpoint import load_network, save_network


def network() -> SPAN:
    torch.manual_seed(0)
    return SPAN(SpanConfig(channels=4, blocks=1, scale=2))


def adapters() -> Adapters:
    made = Adapters(network(), parse_ranks(network(), "small"))
    for parameter in made.parameters():
        torch.nn.init.constant_(parameter, 0.03)
    return made


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`base.safetensors` and `adapter.safetensors` in the current folder."""
    monkeypatch.chdir(tmp_path)
    save_network(network(), Path("base.safetensors"), "")
    save_adapters(adapters(), Path("adapter.safetensors"), sha256_of(Path("base.safetensors")), '{"step": 7}')
    return tmp_path


def test_the_merged_file_is_the_base_with_the_adapter(dsclora, files: Path) -> None:
    code, out, err = dsclora("merge", "base.safetensors", "adapter.safetensors", "-o", "mine.safetensors")
    assert (code, err) == (0, "")
    assert out == f"mine.safetensors: base with adapter.safetensors (sha256 {sha256_of(Path('mine.safetensors'))})\n"
    merged, expected = load_network(Path("mine.safetensors")), merge_adapters(network(), adapters())
    assert all(torch.equal(tensor, merged.state_dict()[name]) for name, tensor in expected.state_dict().items())
    with safe_open("mine.safetensors", "pt") as file:
        training = json.loads(file.metadata()["training"])
    assert training == {
        "base": sha256_of(Path("base.safetensors")),
        "adapter": sha256_of(Path("adapter.safetensors")),
        "adapter_training": '{"step": 7}',
        "strength": 1.0,
    }


def test_strength_is_the_share_of_the_adapter(dsclora, files: Path) -> None:
    states = [network().state_dict()]
    for strength in ("0", "0.5", "1"):
        code, _, err = dsclora(
            "merge", "base.safetensors", "adapter.safetensors", "-o", f"{strength}.safetensors", "--strength", strength
        )
        assert (code, err) == (0, "")
        states.append(load_network(Path(f"{strength}.safetensors")).state_dict())
    base, none, half, whole = states
    for name, weight in base.items():
        assert torch.equal(none[name], weight)
        torch.testing.assert_close(half[name], (weight + whole[name]) / 2)
    assert not torch.equal(whole["conv_2.eval_conv.weight"], base["conv_2.eval_conv.weight"])


@pytest.mark.parametrize("strength", ["-0.1", "nan", "inf"])
def test_a_negative_or_infinite_strength_is_refused(dsclora, files: Path, strength: str) -> None:
    code, _, err = dsclora(
        "merge", "base.safetensors", "adapter.safetensors", "-o", "mine.safetensors", "--strength", strength
    )
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"--strength {strength} is not a share of an adapter" in err
    assert not Path("mine.safetensors").exists()


def test_json_names_the_files_and_their_digests(dsclora, files: Path) -> None:
    code, out, _ = dsclora("merge", "base.safetensors", "adapter.safetensors", "-o", "mine.safetensors", "--json")
    assert code == 0
    assert json.loads(out) == {
        "version": 1,
        "file": "mine.safetensors",
        "sha256": sha256_of(Path("mine.safetensors")),
        "base": "base",
        "base_sha256": sha256_of(Path("base.safetensors")),
        "adapter_sha256": sha256_of(Path("adapter.safetensors")),
    }


def test_another_base_needs_force(dsclora, files: Path) -> None:
    other = network()
    other.conv_cat.weight.data.mul_(1.5)
    save_network(other, Path("other.safetensors"), "")
    code, _, err = dsclora("merge", "other.safetensors", "adapter.safetensors", "-o", "mine.safetensors")
    assert code == 3
    assert err.startswith("error: adapter.safetensors is an adapter for weights with sha256 ")
    assert err.endswith("(give the weights that the adapter was trained on)\n")
    assert not Path("mine.safetensors").exists()
    assert dsclora("merge", "other.safetensors", "adapter.safetensors", "-o", "mine.safetensors", "--force").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("base.safetensors", "adapter.safetensors", "-o", "base.safetensors"), 2, "base.safetensors exists"),
        (("base.safetensors", "base.safetensors", "-o", "x.safetensors"), 3, "base.safetensors is not an adapter"),
        (
            ("adapter.safetensors", "adapter.safetensors", "-o", "x.safetensors"),
            3,
            "adapter.safetensors is an adapter, and no network",
        ),
        (("nobody", "adapter.safetensors", "-o", "x.safetensors"), 2, "nobody"),
        (("base.safetensors", "absent", "-o", "x.safetensors"), 3, "cannot read absent"),
        (
            ("base.safetensors", "adapter.safetensors", "-o", "no/x.safetensors"),
            1,
            "no/x.safetensors cannot be written",
        ),
        (("base.safetensors", "adapter.safetensors", "-o", "x.pth"), 2, "the suffix of x.pth is not .safetensors"),
    ],
)
def test_a_refused_merge_writes_nothing(
    arguments: tuple[str, ...], code: int, message: str, dsclora, files: Path
) -> None:
    before = sorted(path.name for path in files.iterdir())
    ran = dsclora("merge", *arguments)
    assert ran.code == code
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert sorted(path.name for path in files.iterdir()) == before
