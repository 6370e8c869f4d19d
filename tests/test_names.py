"""The tables of names belong to the networks and the metrics of the package."""

from __future__ import annotations

import pytest

from dsclora_cli.evaluation.protocol import protocol_of
from dsclora_cli.names import ARCHITECTURES, METRICS, metric_title
from dsclora_cli.recipe import NetworkOptions, Recipe
from dsclora_cli.recipe_toml import resolve_defaults
from dsclora_cli.training.train import new_network
from dsclora_cli.weights.catalog import load_catalog
from dsclora_cli.weights.detect import KNOWN


def test_every_known_architecture_is_in_the_table() -> None:
    assert {each.name for each in KNOWN} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_of_every_architecture_can_be_trained(name: str) -> None:
    groups = 1 if name == "rcan" else None
    options = resolve_defaults(Recipe(network=NetworkOptions(name, 2, 4, 1, groups))).network
    assert new_network(options).config.descriptor.arch == name


def test_every_metric_of_a_protocol_and_of_the_catalogue_has_a_title() -> None:
    stated = [scores for entry in load_catalog().entries.values() for scores in (entry.published, entry.reference)]
    metrics = {metric for scores in stated for means in scores.values() for metric in means}
    assert metrics | set(protocol_of("paper", 2).metrics) <= set(METRICS)
    assert metric_title("psnr_y") == "PSNR-Y"
    assert metric_title("lpips") == "lpips"
