"""Own networks and adapters on their way to the Hub: nothing of this machine goes with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import small
from small_networks import NETWORKS, made
from training import tiny_recipe

from dsclora_cli.errors import UsageError, WeightsError
from dsclora_cli.models.lora import Adapters, parse_ranks
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.paths import config_dir, sha256_of
from dsclora_cli.publishing.own_model import open_own_model
from dsclora_cli.recipe import DistillOptions, Recipe
from dsclora_cli.recipe_toml import read_recipe, recipe_digest, recipe_to_toml
from dsclora_cli.weights.adapters import save_adapters
from dsclora_cli.weights.catalog import load_catalog
from dsclora_cli.weights.checkpoint import load_network, save_network
from dsclora_cli.weights.download import obtain

ORIGIN = {"recipe": "a" * 64, "data": "b" * 64, "seed": 1, "step": 40, "held_out_psnr_y": 31.5, "torch": "2.13.0+cpu"}


def finished_run(folder: Path, recipe: Recipe, name: str = "best.safetensors") -> Path:
    """Write the files of a run that a push reads, and return the folder."""
    folder.mkdir()
    (folder / "recipe.toml").write_text(recipe_to_toml(recipe), encoding="utf-8")
    save_network(small(), folder / name, json.dumps({**ORIGIN, "recipe": recipe_digest(recipe)}))
    return folder


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_this_program_keeps_its_bytes(tmp_path: Path, name: str) -> None:
    save_network(made(name), tmp_path / "own.safetensors", json.dumps(ORIGIN))
    merged = load_network(tmp_path / "own.safetensors")
    save_network(merged, tmp_path / "own.safetensors", json.dumps(ORIGIN))
    model = open_own_model(tmp_path / "own.safetensors")
    assert model.content == (tmp_path / "own.safetensors").read_bytes()
    assert (model.kind, model.notes, model.training) == ("network", (), ORIGIN)
    assert (
        model.facts["arch"] == merged.config.descriptor.arch and model.facts["scale"] == merged.config.descriptor.scale
    )


def test_a_pickle_is_converted_with_a_note(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "own.pth")
    model = open_own_model(tmp_path / "own.pth")
    assert model.notes == (
        f"{tmp_path / 'own.pth'} is converted to the form in which dsclora saves weights, so its sha256 changes",
    )
    (tmp_path / "sent.safetensors").write_bytes(model.content)
    sent, own = load_network(tmp_path / "sent.safetensors").state_dict(), small().merged().state_dict()
    assert all(torch.equal(sent[name], own[name]) for name in own)


@pytest.mark.parametrize(
    "said",
    [
        "trained on /home/me/pictures",
        json.dumps({**ORIGIN, "data": "/home/me/pictures"}),
        json.dumps({**ORIGIN, "folder": "pictures"}),
        json.dumps({**ORIGIN, "torch": "/opt/torch 2"}),
        json.dumps({"base": "a" * 64, "adapter": "b" * 64, "strength": 1.0, "adapter_training": "from C:\\photos"}),
        json.dumps(["/home/me"]),
    ],
)
def test_unknown_words_about_the_training_stay_here(tmp_path: Path, said: str) -> None:
    save_network(small(), tmp_path / "own.safetensors", said)
    model = open_own_model(tmp_path / "own.safetensors")
    assert "are left out: they may name files of this machine" in model.notes[0] and len(model.notes) == 1
    assert model.training == {} and b"/home" not in model.content and b"photos" not in model.content


def test_a_merged_network_keeps_its_history(tmp_path: Path) -> None:
    said = {"base": "a" * 64, "adapter": "b" * 64, "strength": 0.5, "adapter_training": json.dumps(ORIGIN)}
    save_network(small(), tmp_path / "own.safetensors", json.dumps(said))
    assert open_own_model(tmp_path / "own.safetensors").training == said


def test_metadata_of_other_programs_stay_here(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in small().state_dict().items()}
    save_file(tensors, tmp_path / "own.safetensors", {"saved_in": "/home/me/runs/7"})
    model = open_own_model(tmp_path / "own.safetensors")
    assert b"/home/me" not in model.content and "is converted" in model.notes[0]


def test_a_run_gives_its_recipe_without_local_paths(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "holiday-2019")
    secret = replace(recipe, data=replace(recipe.data, lr=Path("/home/me/lr"), val=Path("private/val")))
    secret = replace(secret, network=replace(secret.network, init="/home/me/old.pth"))
    model = open_own_model(finished_run(tmp_path / "run", secret))
    assert model.left_out == ("init", "data", "lr", "val")
    for word in ("home", "holiday", "private", "device", "threads"):
        assert word not in model.recipe
    assert "patch = 8\n" in model.recipe and "steps = 12\n" in model.recipe
    (tmp_path / "recipe.toml").write_text(model.recipe, encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.toml").network == replace(secret.network, init=None)


def test_names_that_everybody_knows_stay_in_the_recipe(tmp_path: Path) -> None:
    recipe = tiny_recipe(Path("DIV2K"))
    options = DistillOptions(method="logits", teacher="dsclora-x4", teacher_images="whole")
    model = open_own_model(finished_run(tmp_path / "run", replace(recipe, distill=options)))
    assert model.left_out == ()
    for line in ('data = ["DIV2K"]', 'teacher = "dsclora-x4"', 'teacher_images = "whole"'):
        assert f"\n{line}\n" in model.recipe


def test_a_recipe_of_another_run_is_not_taken(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", tiny_recipe(tmp_path))
    (run / "recipe.toml").write_text(recipe_to_toml(tiny_recipe(tmp_path, steps=99)), encoding="utf-8")
    assert open_own_model(run).recipe == ""
    (run / "recipe.toml").write_text("[unknown]\n", encoding="utf-8")
    assert open_own_model(run).recipe == ""


def test_an_adapter_tells_its_base(tmp_path: Path) -> None:
    base = load_catalog().entry("dsclora-x2")
    network = load_network(obtain(base))
    adapters = Adapters(network, parse_ranks(network, "upsampler.0:2"))
    save_adapters(adapters, tmp_path / "adapter.safetensors", base.sha256, json.dumps(ORIGIN))
    model = open_own_model(tmp_path)  # the folder of a run without a recipe
    assert (model.kind, model.base, model.base_sha256) == ("adapter", base, base.sha256)
    assert model.content == (tmp_path / "adapter.safetensors").read_bytes()
    assert (model.facts["scale"], model.facts["channels"]) == (2, base.channels)
    assert model.facts["adapter_parameters"] == sum(p.numel() for p in adapters.parameters())

    save_adapters(adapters, tmp_path / "adapter.safetensors", "c" * 64, "")
    model = open_own_model(tmp_path)
    assert (model.base, model.base_sha256) == (None, "c" * 64) and "scale" not in model.facts


def test_an_adapter_that_does_not_fit_its_base_is_refused(tmp_path: Path) -> None:
    network = SPAN(SpanConfig(channels=4, blocks=1, scale=2))
    adapters = Adapters(network, parse_ranks(network, "upsampler.0:2"))
    sha256 = load_catalog().entry("dsclora-x2").sha256
    save_adapters(adapters, tmp_path / "adapter.safetensors", sha256, "")
    with pytest.raises(WeightsError, match="does not fit this network"):
        open_own_model(tmp_path)


def test_a_file_in_the_users_own_catalogue_is_not_published_yet(tmp_path: Path) -> None:
    save_network(small(), tmp_path / "own.safetensors", "")
    config_dir().mkdir(parents=True, exist_ok=True)
    (config_dir() / "weights.toml").write_text(
        f"[weights.mine]\narch = \"span\"\nscale = 2\nchannels = 4\nfile = '{tmp_path}/own.safetensors'\n"
        f'size = {(tmp_path / "own.safetensors").stat().st_size}\nlicence = "mine"\nsource = "me"\n'
        f'sha256 = "{sha256_of(tmp_path / "own.safetensors")}"\n',
        encoding="utf-8",
    )
    assert load_catalog().entry("mine").sha256 == open_own_model(tmp_path / "own.safetensors").sha256


def test_weights_that_are_no_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "own.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(WeightsError, match="is not a file of weights"):
        open_own_model(tmp_path / "own.safetensors")
    with pytest.raises(UsageError, match="holds no finished weights"):
        open_own_model(tmp_path)


def test_the_sha256_of_the_file_is_kept_for_its_scores(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "own.pth")
    assert open_own_model(tmp_path / "own.pth").sha256 == sha256_of(tmp_path / "own.pth")
