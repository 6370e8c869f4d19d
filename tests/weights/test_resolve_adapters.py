"""The choice of an adapter: by file, together with a weight file, and as an entry of the catalog."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from networks import small
from training import photographs, tiny_recipe

from dsclora_cli.config import ModelOptions
from dsclora_cli.datasets.patches import open_data
from dsclora_cli.distillation.distill import distill
from dsclora_cli.distillation.merge import merge
from dsclora_cli.errors import UsageError, WeightsError
from dsclora_cli.models.lora import Adapters, merge_adapters, parse_ranks
from dsclora_cli.paths import config_dir, sha256_of
from dsclora_cli.recipe import DistillOptions
from dsclora_cli.training.train import initial_network
from dsclora_cli.training.trainer import TrainCallbacks
from dsclora_cli.weights.adapters import save_adapters
from dsclora_cli.weights.checkpoint import save_network
from dsclora_cli.weights.resolve import find_weights, native_scales, open_network


def _adapters() -> Adapters:
    adapters = Adapters(small(), parse_ranks(small(), "small"), seed=3)
    for parameter in adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return adapters


@pytest.fixture
def base(tmp_path: Path) -> Path:
    save_network(small(), tmp_path / "base.safetensors", "test")
    return tmp_path / "base.safetensors"


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    torch.manual_seed(4)
    save_adapters(_adapters(), tmp_path / "portraits.safetensors", sha256_of(base), "test")
    return tmp_path / "portraits.safetensors"


def _catalog(**entries: tuple[Path, str]) -> None:
    text = "".join(
        f"[weights.{name}]\narch = \"span\"\nscale = 2\nchannels = 4\nfile = '{path}'\nsize = {path.stat().st_size}\n"
        f'sha256 = "{sha256_of(path)}"\nlicence = "MIT"\nsource = "me"\n{more}\n'
        for name, (path, more) in entries.items()
    )
    config_dir().mkdir(parents=True, exist_ok=True)
    (config_dir() / "weights.toml").write_text(text, encoding="utf-8")


def _equal(options: ModelOptions) -> bool:
    torch.manual_seed(4)
    expected = merge_adapters(small(), _adapters()).state_dict()
    found = open_network(find_weights(options, 2)).state_dict()
    return all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())


def test_an_adapter_finds_its_model_in_the_catalog(base: Path, adapter: Path) -> None:
    _catalog(mine=(base, ""))
    options = ModelOptions(adapter=adapter)
    found = find_weights(options, 2)

    assert (found.name, found.path, found.adapter) == ("mine-portraits", base, adapter)
    assert found.sha256 == f"{sha256_of(base)}/{sha256_of(adapter)}"
    assert native_scales(options) == (2,)
    assert _equal(options)


def test_an_adapter_for_weights_outside_the_catalog_needs_the_weight_file(base: Path, adapter: Path) -> None:
    with pytest.raises(
        WeightsError,
        match=r"is an adapter for weights that are not in the catalogue.*the file of these",
    ):
        find_weights(ModelOptions(adapter=adapter), 2)
    assert _equal(ModelOptions(weights=base, adapter=adapter))


def test_an_adapter_is_refused_for_other_weights(base: Path, adapter: Path, tmp_path: Path) -> None:
    save_network(small(seed=7), tmp_path / "other.safetensors", "test")
    over_another = ModelOptions(weights=tmp_path / "other.safetensors", adapter=adapter)
    with pytest.raises(UsageError, match=r"adapter for weights with sha256 [0-9a-f]{12}\.\.\., not for other"):
        find_weights(over_another, 2)
    _catalog(mine=(base, ""), plus=(adapter, 'base = "mine"'))
    with pytest.raises(UsageError, match=r"portraits\.safetensors is an adapter for mine, not for other"):
        find_weights(over_another, 2)
    with pytest.raises(UsageError, match="is an adapter for mine, not for plus"):
        find_weights(ModelOptions("plus", adapter=adapter), 2)


def test_an_entry_whose_adapter_is_for_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    save_network(small(seed=7), tmp_path / "other.safetensors", "test")
    _catalog(mine=(tmp_path / "other.safetensors", ""), plus=(adapter, 'base = "mine"'))
    with pytest.raises(WeightsError, match="give the weights that the adapter was trained on"):
        open_network(find_weights(ModelOptions("plus"), 2))


def test_an_entry_may_be_an_adapter_for_another_entry(base: Path, adapter: Path) -> None:
    _catalog(mine=(base, ""), plus=(adapter, 'base = "mine"'))
    found = find_weights(ModelOptions("plus"), 2)

    assert (found.name, found.path, found.adapter) == ("plus", base, adapter)
    assert found.entry is not None
    assert _equal(ModelOptions("plus"))
    _catalog(mine=(base, ""), plus=(adapter, 'base = "mine"'), more=(adapter, 'base = "plus"'))
    with pytest.raises(UsageError, match="base: 'plus' is not the name of weights of scale 2"):
        find_weights(ModelOptions("more"), 2)


def test_an_adapter_on_the_hub_finds_its_base_in_the_catalog(base: Path, adapter: Path, monkeypatch) -> None:
    files = {"mine.safetensors": adapter.read_bytes()}
    with HubServer("me/portraits", files, card={"license": "cc0-1.0"}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        options = ModelOptions("me/portraits")
        with pytest.raises(
            WeightsError, match="me/portraits is an adapter for weights that are not in the catalogue"
        ) as caught:
            find_weights(options, 2)
        assert caught.value.hint.startswith("give its file of weights as the model, and --adapter ")

        _catalog(base=(base, ""))
        found = find_weights(options, None)
        assert (found.name, found.licence) == ("base-mine", "cc0-1.0")
        assert found.sha256 == f"{sha256_of(base)}/{sha256_of(adapter)}"
        assert native_scales(options) == (2,) and _equal(options)
        with pytest.raises(UsageError, match="base upscales by 2, not by 3"):
            find_weights(options, 3)


def test_an_entry_with_an_adapter_is_the_same_network_everywhere(base: Path, adapter: Path, tmp_path: Path) -> None:
    _catalog(mine=(base, ""), plus=(adapter, 'base = "mine"'))
    assert _equal(ModelOptions("plus"))
    expected = open_network(find_weights(ModelOptions("plus"), 2)).state_dict()

    recipe = tiny_recipe(photographs(tmp_path / "photos"))
    shape = small().config
    network = replace(recipe.network, channels=shape.channels, blocks=shape.blocks, init="plus")
    recipe = replace(recipe, network=network)
    started = initial_network(recipe, open_data(recipe)[0]).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in started.items())

    for force in (False, True):
        with pytest.raises(UsageError, match=r"plus contains an adapter already .*base of that adapter, mine"):
            merge("plus", adapter, tmp_path / "merged.safetensors", force=force)
    with pytest.raises(UsageError, match=r"plus already contains an adapter .*dsclora export plus -o FILE"):
        distill(replace(recipe, distill=DistillOptions(base="plus")), tmp_path / "run", False, TrainCallbacks())


def test_an_adapter_in_place_of_a_network_is_called_an_adapter(adapter: Path) -> None:
    with pytest.raises(WeightsError, match=r"is an adapter, and no network \(give the weights that it was"):
        native_scales(ModelOptions(weights=adapter))
