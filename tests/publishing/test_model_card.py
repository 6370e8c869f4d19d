"""The model card and `config.json`: metadata that the Hub reads, and words for people."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from networks import small

from dsclora_cli.publishing.model_card import CardFacts, write_card, write_config
from dsclora_cli.publishing.own_model import open_own_model
from dsclora_cli.publishing.scores import ModelScores, SetScores
from dsclora_cli.weights.catalog import load_catalog
from dsclora_cli.weights.checkpoint import save_network

SCORES = ModelScores(
    ("psnr_y", "ssim_y"),
    "protocol paper, border 2",
    (
        SetScores("Set5", 5, {"psnr_y": 37.57419, "ssim_y": 0.95929}, {"psnr_y": 33.67341, "ssim_y": 0.93029}),
        SetScores("mine | all", 2, {"psnr_y": float("inf"), "ssim_y": 1.0}, {"psnr_y": 30.0, "ssim_y": 0.9}),
    ),
)


@pytest.fixture
def card(tmp_path: Path) -> CardFacts:
    save_network(small(), tmp_path / "own.safetensors", json.dumps({"step": 4000, "held_out_psnr_y": 31.456}))
    return CardFacts(open_own_model(tmp_path / "own.safetensors"), "me/x2", "x2.safetensors", "f" * 64, "mit", SCORES)


def head_of(card: CardFacts) -> dict[str, object]:
    """Return the metadata as the Hub reads them: YAML between two lines of dashes."""
    import yaml  # a dependency of the Hub's client

    first, text, _ = write_card(card).split("---\n", 2)
    assert first == ""
    return yaml.safe_load(text)


def test_the_head_is_what_the_hub_expects(card: CardFacts) -> None:
    head = head_of(card)
    assert (head["license"], head["library_name"], head["pipeline_tag"]) == ("mit", "dsclora", "image-to-image")
    assert head["tags"] == ["super-resolution", "image-upscaling", "span", "x2"]
    (index,) = head["model-index"]
    assert index["name"] == "x2"
    assert index["results"][0] == {
        "task": {"type": "image-to-image", "name": "super-resolution"},
        "dataset": {"type": "Set5", "name": "Set5"},
        "metrics": [
            {"type": "psnr", "name": "PSNR-Y", "value": 37.57419},
            {"type": "ssim", "name": "SSIM-Y", "value": 0.95929},
        ],
    }
    assert [metric["type"] for metric in index["results"][1]["metrics"]] == ["ssim"]  # no infinity in the index


def test_the_client_of_the_hub_reads_the_head(card: CardFacts, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    (tmp_path / "README.md").write_text(write_card(card), encoding="utf-8")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.library_name) == ("mit", "dsclora")
    assert (data.eval_results[0].dataset_name, data.eval_results[0].metric_value) == ("Set5", 37.57419)


def test_people_read_scores_training_and_licence(card: CardFacts) -> None:
    text = write_card(card)
    for line in (
        "A network that upscales pictures by 2: SPAN of 4 channels and 2 blocks,",
        "dsclora upscale photo.jpg -m me/x2",
        "| Set5 (5 pictures) | x2 | 37.57 | 0.9593 |",
        "| Set5 (5 pictures) | bicubic | 33.67 | 0.9303 |",
        r"| mine \| all (2 pictures) | x2 | inf | 1.0000 |",
        "Measured with `dsclora eval`, protocol paper, border 2.",
        "PSNR-Y on the held-out pictures of the training: 31.46 dB.",
        "Weights of step 4,000.",
        "## Licence\n\nmit.",
    ):
        assert line in text


def test_without_licence_scores_and_training_nothing_is_invented(card: CardFacts) -> None:
    bare = replace(card, licence="", scores=None, model=replace(card.model, training={}))
    text = write_card(bare)
    assert "## Scores" not in text and "## Training" not in text and "license" not in head_of(bare)
    assert "None is stated: ask the author before you use the weights." in text


def test_an_adapter_names_its_base(card: CardFacts) -> None:
    base = load_catalog().entry("dscf-x4")
    model = replace(card.model, kind="adapter", base=base, base_sha256=base.sha256)
    head = head_of(replace(card, model=model))
    assert (head["base_model"], head["base_model_relation"]) == (base.repo, "adapter")
    text = write_card(replace(card, model=model))
    assert "An adapter (ConvLoRA) for `dscf-x4`, SPAN of 4 channels and 2 blocks." in text
    assert f"The base, `dscf-x4`, has the licence {base.licence}." in text
    assert json.loads(write_config(replace(card, model=model)))["base"] == {"sha256": base.sha256, "name": "dscf-x4"}

    unknown = replace(model, base=None, base_sha256="c" * 64, facts={"adapter_parameters": 10})
    text = write_card(replace(card, model=unknown))
    assert f"An adapter (ConvLoRA) for a network with sha256 `{'c' * 64}`." in text
    assert "--adapter x2.safetensors --weights BASE.safetensors" in text
