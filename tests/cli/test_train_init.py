"""`train --init` and `distill --init` on the command line: the new network is the network of the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dsclora_cli.models.compact import LEAKY_RELU, RELU, Compact, CompactConfig
from dsclora_cli.models.edsr import EDSR, EdsrConfig
from dsclora_cli.models.lora import Adapters, parse_ranks
from dsclora_cli.models.network import Network
from dsclora_cli.models.rcan import RCAN, RcanConfig
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.adapters import save_adapters
from dsclora_cli.weights.checkpoint import load_network, save_network

SMALL = ("--channels", "4", "--blocks", "1")
STILL = ("--learning-rate", "0", "--steps", "1", "--patch", "8", "--batch", "2")
HERE = ("--device", "cpu", "--compile", "off", "--threads", "1")
UNUSUAL = {
    "span": lambda scale: SPAN(SpanConfig(4, 1, scale, norm=False)),
    "edsr": lambda scale: EDSR(EdsrConfig(4, 1, scale, res_scale=0.1)),
    "rcan": lambda scale: RCAN(RcanConfig(4, 1, scale, groups=1, attention=3)),
    "relu": lambda scale: Compact(CompactConfig(4, 1, scale, RELU)),
    "leaky": lambda scale: Compact(CompactConfig(4, 1, scale, LEAKY_RELU)),
}
ARCHS = {"span": "span", "edsr": "edsr", "rcan": "rcan", "relu": "compact", "leaky": "compact"}


def saved(network: Network, path: str = "init.safetensors") -> Path:
    save_network(network, Path(path), training="{}")
    return Path(path)


def save_adapter(base: Path, path: str) -> None:
    network = load_network(base)
    save_adapters(Adapters(network, parse_ranks(network, "small"), seed=1), Path(path), sha256_of(base), "")


def started(dsclora, photos: Path, kind: str, init: Path) -> Network:
    """The network of a run that starts from a file and learns nothing."""
    shape = ("--arch", ARCHS[kind], *SMALL, *(("--groups", "1") if kind == "rcan" else ()))
    run = dsclora("train", "--init", init, *shape, "-s", 2, "--data", photos, "--out", "run", *STILL, *HERE, "-q")
    assert run.code == 0, run.err
    return load_network(Path("run/last.safetensors"))


@pytest.mark.parametrize("kind", UNUSUAL)
def test_settings_that_are_no_weights_come_from_the_file(dsclora, photos: Path, kind: str) -> None:
    torch.manual_seed(0)
    init = saved(UNUSUAL[kind](2))
    found, wanted = started(dsclora, photos, kind, init), load_network(init)
    assert found.config == wanted.config
    assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in found.state_dict().items())
    picture = torch.rand(1, 3, 9, 8)
    assert torch.equal(found(picture), wanted(picture))


@pytest.mark.parametrize("kind", UNUSUAL)
def test_settings_come_from_a_file_of_another_scale_too(dsclora, photos: Path, kind: str) -> None:
    torch.manual_seed(0)
    source = UNUSUAL[kind](3)
    found = started(dsclora, photos, kind, saved(source))
    assert found.config == replace(source.config, scale=2)
    for name, value in found.state_dict().items():
        if not name.startswith(source.upsampling_prefixes):
            assert torch.equal(value, source.state_dict()[name])


def test_a_run_of_an_earlier_version_that_dropped_settings_is_not_resumed(dsclora, photos: Path) -> None:
    started(dsclora, photos, "span", saved(UNUSUAL["span"](2)))
    assert dsclora("train", "--out", "run", "--resume", "-q").code == 0
    state = torch.load("run/state.pt", weights_only=True)
    del state["meaning"]
    torch.save(state, "run/state.pt")
    code, _, err = dsclora("train", "--out", "run", "--resume")
    expected = "run began in an earlier version, without norm False of --init (start a new run with another --out)"
    assert code == 2 and err.endswith(f"error: {expected}\n")


@pytest.mark.parametrize(
    ("network", "arguments", "held", "hint"),
    [
        (
            SPAN(SpanConfig(8, 1, 2)),
            ("--arch", "edsr"),
            "span, 8 channels, 1 blocks",
            "give --arch span --channels 8 --blocks 1",
        ),
        (
            RCAN(RcanConfig(8, 1, 2, 2, 1)),
            ("--arch", "rcan", "--channels", "8", "--blocks", "1"),
            "rcan, 8 channels, 1 blocks, 2 groups",
            "give --channels 8 --blocks 1 --groups 2",
        ),
        (
            SPAN(SpanConfig(4, 1, 2)),
            ("--channels", "4", "--blocks", "1", "--expanded"),
            "span, 4 channels, 1 blocks, merged",
            "leave --expanded out",
        ),
        (
            EDSR(EdsrConfig(4, 1, 2)),
            ("--expanded",),
            "edsr, 4 channels, 1 blocks, merged",
            "give --arch edsr --channels 4 --blocks 1 and leave --expanded out",
        ),
    ],
)
def test_a_file_of_another_network_is_refused_with_the_options_that_fit(
    dsclora, photos: Path, network: Network, arguments: tuple[str, ...], held: str, hint: str
) -> None:
    saved(network)
    given = ("--init", "init.safetensors", "-s", "2", *arguments, *STILL, *HERE)
    code, _, err = dsclora("train", "--data", photos, "--out", "run", *given)
    error = f"init.safetensors holds another network than the recipe: {held}"
    assert code == 2 and err.endswith(f"error: {error} ({hint})\n")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("train", "--init"), "--init"),
        (("distill", "--method", "logits", "--teacher", "other.safetensors", "--init"), "--init"),
        (("distill", "--base"), "--base"),
        (("distill", "--base", "other.safetensors", "--teacher"), "--teacher"),
        (("distill", "--method", "fd", "--teacher"), "--teacher"),
    ],
)
def test_hints_name_the_option_that_gave_the_weights(dsclora, photos: Path, arguments: tuple[str, ...], option) -> None:
    save_adapter(saved(SPAN(SpanConfig(4, 1, 2)), "other.safetensors"), "adapter.safetensors")
    rest = ("--data", photos, "--out", "run", "-s", "2", *SMALL, *STILL, *HERE)

    code, _, err = dsclora(*arguments, "absent.pth", *rest)
    error = f"cannot read absent.pth: No such file or directory (check the path given with {option})"
    assert code == 3 and err.endswith(f"error: {error}\n")

    code, _, err = dsclora(*arguments, "adapter.safetensors", *rest)
    hint = "merge it with its base: `dsclora merge BASE ADAPTER -o FILE.safetensors`"
    if option == "--base":
        hint = f"continue it with --init-adapter ADAPTER and its own --base, or {hint}"
    assert code == 3 and err.endswith(f"error: adapter.safetensors is an adapter, and no network ({hint})\n")
    assert not Path("run").exists()


@pytest.mark.parametrize("arguments", [("merge", "{}", "adapter"), ("export", "{}"), ("upscale", "photos", "-m", "{}")])
def test_hints_of_other_commands_name_no_option_that_they_lack(dsclora, photos: Path, arguments) -> None:
    save_adapter(saved(SPAN(SpanConfig(4, 1, 2))), "adapter")
    asked = [argument.format("absent.pth") for argument in arguments]
    code, _, err = dsclora(*asked, "-o", "x.safetensors")
    assert code == 3 and err.endswith("error: cannot read absent.pth: No such file or directory (check the path)\n")
