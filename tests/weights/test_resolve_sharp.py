"""The choice of a sharp network: from the catalog, by file, over an adapter, and by `auto`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import small

from dsclora_cli.config import ModelOptions
from dsclora_cli.errors import UsageError, WeightsError
from dsclora_cli.models.lora import Adapters, merge_adapters, parse_ranks
from dsclora_cli.models.network import Network, interpolate
from dsclora_cli.models.span import SpanConfig
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights import catalog
from dsclora_cli.weights.adapters import save_adapters
from dsclora_cli.weights.checkpoint import load_network, save_network
from dsclora_cli.weights.listing import list_models
from dsclora_cli.weights.resolve import find_weights, native_scales, open_network

SEEDS = {"first": 0, "body": 1, "photo": 2, "crisp": 3}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A packaged catalog where `body` and `photo` have the sharp network `crisp`, and auto's `first` has none."""
    text = '[auto]\n2 = ["first", "body"]\n3 = ["large"]\n[photo.2]\nmodel = "photo"\njpeg = 80\n'
    for name, seed in SEEDS.items():
        save_network(small(seed), tmp_path / f"{name}.safetensors", "test")
        text += _entry(tmp_path / f"{name}.safetensors", 2, 'sharp = "crisp"' if name in {"body", "photo"} else "")
    save_network(small(4, scale=3), tmp_path / "large.safetensors", "test")
    (tmp_path / "weights.toml").write_text(text + _entry(tmp_path / "large.safetensors", 3, ""))
    monkeypatch.setattr(catalog, "packaged_file", lambda: tmp_path / "weights.toml")
    return tmp_path


def _entry(path: Path, scale: int, more: str) -> str:
    return (
        f"[weights.{path.stem}]\narch = \"span\"\nscale = {scale}\nchannels = 4\nfile = '{path}'\n"
        f'size = {path.stat().st_size}\nsha256 = "{sha256_of(path)}"\nlicence = "MIT"\nsource = "me"\n{more}\n'
    )


def _equal(network: Network, other: Network) -> bool:
    expected = other.state_dict()
    return all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_a_sharpness_moves_the_weights_towards_the_sharp_network(files: Path) -> None:
    found = find_weights(ModelOptions("body", sharp=0.25), 2)
    body, crisp = (load_network(files / f"{name}.safetensors") for name in ("body", "crisp"))

    assert (found.name, found.entry, found.note) == ("body-sharp0.25", None, None)
    assert _equal(open_network(found), interpolate(body, crisp, 0.25))
    assert _equal(open_network(find_weights(ModelOptions("body", sharp=1), 2)), crisp)
    with_file = ModelOptions(weights=files / "body.safetensors", sharp=0.25)
    assert find_weights(with_file, 2) == found  # a copy of known weights has the same sharp network


@pytest.mark.parametrize("options", [ModelOptions("body"), ModelOptions()])
def test_no_sharpness_changes_nothing(files: Path, options: ModelOptions) -> None:
    assert find_weights(replace(options, sharp=0), 2) == find_weights(options, 2)
    assert native_scales(replace(options, sharp=0.0)) == native_scales(options)


def test_every_strength_and_sharp_network_has_its_own_digest(files: Path) -> None:
    options = [ModelOptions("body", sharp=share) for share in (None, 0.3, 0.3000001, 1.0)]
    options += [ModelOptions("photo", sharp=0.3)]
    options += [ModelOptions("body", sharp=0.3, sharp_weights=files / "first.safetensors")]
    assert len({find_weights(each, 2).sha256 for each in options}) == len(options)
    assert find_weights(ModelOptions("body", sharp=1), 2) == find_weights(ModelOptions("body", sharp=1.0), 2)


def test_auto_takes_its_first_model_with_a_sharp_network_and_says_so(files: Path) -> None:
    found = find_weights(ModelOptions(sharp=0.5), 2)
    assert (found.name, found.note) == ("body-sharp0.5", "first has no sharp model: using the embedded body")
    assert native_scales(ModelOptions(sharp=0.5)) == (2,)
    with pytest.raises(UsageError, match=r"large has no sharp model \(name a model that has one: body, photo; or"):
        find_weights(ModelOptions(sharp=0.5), 3)
    text = (files / "weights.toml").read_text().replace('sharp = "crisp"', "")
    (files / "weights.toml").write_text(text)
    with pytest.raises(UsageError, match=r"auto has no sharp model \(leave --sharp out, or give a file"):
        native_scales(ModelOptions(sharp=0.5))


def test_a_sharp_network_by_file_serves_any_model(files: Path) -> None:
    options = ModelOptions("first", sharp=0.5, sharp_weights=files / "photo.safetensors")
    first, photo = (load_network(files / f"{name}.safetensors") for name in ("first", "photo"))
    assert _equal(open_network(find_weights(options, 2)), interpolate(first, photo, 0.5))
    with pytest.raises(WeightsError, match=r"cannot read .*absent.pth.*with --sharp-weights"):
        find_weights(replace(options, sharp_weights=files / "absent.pth"), 2)
    with pytest.raises(WeightsError, match=r"large cannot sharpen first\.safetensors: their sizes differ"):
        open_network(find_weights(replace(options, sharp_weights=files / "large.safetensors"), 2))


def test_equal_configurations_with_other_tensors_are_refused(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration of a network from another library does not tell all sizes."""
    monkeypatch.setattr(SpanConfig, "__eq__", lambda *_: True)
    options = ModelOptions("first", sharp=0.5, sharp_weights=files / "large.safetensors")
    with pytest.raises(WeightsError, match=r"large cannot sharpen first\.safetensors: their sizes differ"):
        open_network(find_weights(options, 2))


def test_an_adapted_model_is_sharpened_after_the_adapter_is_merged(files: Path) -> None:
    body, crisp = (load_network(files / f"{name}.safetensors") for name in ("body", "crisp"))
    adapters = Adapters(body, parse_ranks(body, "upsampler.0:2"))
    torch.nn.init.normal_(adapters.get_parameter("upsampler.0.B"))
    save_adapters(adapters, files / "mine.safetensors", sha256_of(files / "body.safetensors"), "test")
    options = ModelOptions(adapter=files / "mine.safetensors", sharp=0.5)
    found = find_weights(options, 2)

    assert (found.name, native_scales(options)) == ("body-mine-sharp0.5", (2,))
    assert _equal(open_network(found), interpolate(merge_adapters(body, adapters), crisp, 0.5))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            ModelOptions("first", sharp=0.5),
            "first has no sharp model (name a model that has one: body, photo; or leave",
        ),
        (
            ModelOptions("crisp", sharp=0.5),
            "crisp is a sharp model already (leave --sharp out, or sharpen less with body",
        ),
        (ModelOptions("body", sharp_weights=Path("a.pth")), "--sharp-weights is given without --sharp"),
        (ModelOptions(sharp=0.5, sharp_weights=Path("a.pth")), "--sharp-weights is given without a model to sharpen"),
    ],
)
def test_a_sharpness_that_cannot_be_used_is_an_error_before_any_picture(
    files: Path, options: ModelOptions, problem: str
) -> None:
    for ask in (lambda: find_weights(options, 2), lambda: native_scales(options)):
        with pytest.raises(UsageError) as caught:
            ask()
        assert problem in str(caught.value)


def test_the_catalog_names_sharp_networks_of_the_same_scale_only(files: Path) -> None:
    assert {row.name: row.sharp for row in list_models()}["photo"] == "crisp"
    text = (files / "weights.toml").read_text()
    (files / "weights.toml").write_text(text.replace('sharp = "crisp"', 'sharp = "large"'))
    with pytest.raises(UsageError, match=r"\[weights.body\] sharp: 'large' is not the name of weights of scale 2"):
        find_weights(ModelOptions("body"), 2)
