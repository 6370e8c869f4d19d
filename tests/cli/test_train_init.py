"""`train --init` and `distill --init` on the command line: the new network is the network of the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dsclora_cli.models.compact import LEAKY_RELU, RELU, Compact, CompactConfig
from dsclora_cli.models.edsr import EDSR, EdsrConfig
from dsclora_cli.models.network import Network
from dsclora_cli.models.rcan import RCAN, RcanConfig
from dsclora_cli.models.span import SPAN, SpanConfig
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
