"""The network that a run starts from; whole runs are in test_trainer.py."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import Recorder, photographs, tiny_recipe

from dsclora_cli.datasets.patches import TrainSet, open_data
from dsclora_cli.errors import UsageError
from dsclora_cli.models.edsr import EdsrConfig
from dsclora_cli.models.network import NetworkConfig
from dsclora_cli.models.rcan import RcanConfig
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.recipe import LossOptions, NetworkOptions, Recipe
from dsclora_cli.recipe_toml import resolve_defaults
from dsclora_cli.training.losses import ReconstructionLoss
from dsclora_cli.training.train import initial_network, new_network, train
from dsclora_cli.weights.checkpoint import load_network, save_network


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return tiny_recipe(photographs(tmp_path / "photos"))


@pytest.fixture
def data(recipe: Recipe) -> TrainSet:
    return open_data(recipe)[0]


def _saved(config: SpanConfig, path: Path) -> Path:
    torch.manual_seed(5)
    save_network(SPAN(config), path, "{}")
    return path


def _from(recipe: Recipe, init: Path) -> Recipe:
    return replace(recipe, network=replace(recipe.network, init=str(init)))


def test_network_shapes_by_architecture() -> None:
    def shape(options: NetworkOptions) -> NetworkConfig:
        return new_network(resolve_defaults(Recipe(network=options)).network).config

    assert shape(NetworkOptions(scale=3)) == SpanConfig(26, 6, 3)
    assert shape(NetworkOptions("span", expanded=True)) == SpanConfig(48, 6, 4, expanded=True)
    assert shape(NetworkOptions("span", channels=8, blocks=2)) == SpanConfig(8, 2, 4)
    assert shape(NetworkOptions("edsr", scale=2)) == EdsrConfig(64, 16, 2)
    assert shape(NetworkOptions("edsr", channels=256, blocks=1)) == EdsrConfig(256, 1, 4, res_scale=0.1)
    assert shape(NetworkOptions("rcan", channels=8, blocks=2)) == RcanConfig(8, 2, 4, groups=10, attention=1)
    assert shape(NetworkOptions("rcan", channels=40, blocks=2)) == RcanConfig(40, 2, 4, groups=10, attention=2)
    assert shape(NetworkOptions("rcan", groups=1, blocks=1)) == RcanConfig(64, 1, 4, groups=1, attention=4)


def test_a_recipe_chooses_the_terms_of_the_loss() -> None:
    output, hr = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.5)
    assert {name: term.item() for name, term in ReconstructionLoss(LossOptions("l2"))(output, hr).items()} == {
        "pixel": 0.25
    }
    once, twice = (ReconstructionLoss(LossOptions(fft=weight))(output, hr) for weight in (1.0, 2.0))
    assert set(twice) == {"pixel", "fft"}
    assert twice["fft"].item() == pytest.approx(2 * once["fft"].item())


def test_init_of_the_same_shape_loads_all_weights(recipe: Recipe, data: TrainSet, tmp_path: Path) -> None:
    path = _saved(SpanConfig(4, 1, 2), tmp_path / "x2.safetensors")
    network, source = initial_network(_from(recipe, path), data), load_network(path)

    assert all(torch.equal(value, source.state_dict()[name]) for name, value in network.state_dict().items())


def test_init_of_another_scale_loads_all_but_the_upsampler(recipe: Recipe, data: TrainSet, tmp_path: Path) -> None:
    path = _saved(SpanConfig(4, 1, 3), tmp_path / "x3.safetensors")
    network, source = initial_network(_from(recipe, path), data), load_network(path).state_dict()

    for name, value in network.state_dict().items():
        assert torch.equal(value, source[name]) is not name.startswith("upsampler.")
    batch = data.batch(0, slice(None))
    assert (network(batch.lr) - batch.hr).abs().mean() < 0.2  # the new upsampler is fitted, not random


def test_init_of_another_width_is_refused(recipe: Recipe, data: TrainSet, tmp_path: Path) -> None:
    path = _saved(SpanConfig(8, 1, 2), tmp_path / "wide.safetensors")
    with pytest.raises(UsageError, match=r"another network than the recipe: span, 8 channels, 1 blocks \(give"):
        initial_network(_from(recipe, path), data)


@pytest.mark.slow
def test_the_expanded_network_is_trained_and_the_merged_network_is_saved(recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, network=replace(recipe.network, expanded=True), loss=LossOptions("charbonnier", fft=0.1))
    recorder = Recorder()
    result = train(recipe, tmp_path / "run", False, recorder)

    assert result.file is not None and not load_network(result.file).config.expanded
    assert set(recorder.scores[0].terms) == {"pixel", "fft"}
    assert recorder.scores[0].loss == pytest.approx(sum(recorder.scores[0].terms.values()))
