"""`dsclora distill` with feature maps, on the command line: every method, between networks of different kinds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dsclora_cli.models.edsr import EDSR, EdsrConfig
from dsclora_cli.models.rcan import RCAN, RcanConfig
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.weights.checkpoint import load_network, save_network

pytestmark = pytest.mark.slow

QUICK = ("--patch", "8", "--batch", "4", "--steps", "4", "--validate", "4")
HERE = ("--device", "cpu", "--compile", "off", "--threads", "1", "-s", "2")
STUDENT = ("--student", "edsr", "--student-width", "4", "--student-blocks", "2")
OWN_TERMS = {"fd": {"fd"}, "fakd": {"fakd"}, "facd": {"facd"}, "augkd": {"zoom_in", "zoom_out"}}


@pytest.fixture
def teacher(photos: Path) -> Path:
    """An untrained EDSR, wider than the student, next to the folder `photos`."""
    torch.manual_seed(0)
    save_network(EDSR(EdsrConfig(channels=6, blocks=3, scale=2)), Path("teacher.safetensors"), training="{}")
    return Path("teacher.safetensors")


def weights(dsclora, out: str, *arguments: object) -> dict[str, torch.Tensor]:
    run = dsclora("distill", "--data", "photos", "--out", out, *QUICK, *HERE, *arguments, "-q")
    assert run.code == 0, run.err
    return load_network(Path(out, "last.safetensors")).state_dict()


@pytest.mark.parametrize("method", ["logits", *OWN_TERMS, "none"])
def test_every_method_trains_a_student(dsclora, teacher: Path, method: str) -> None:
    given = () if method == "none" else ("--teacher", teacher)
    code, out, err = dsclora(
        "distill", "--method", method, *given, *STUDENT, "--data", "photos", "--out", "run", *QUICK, *HERE, "--json"
    )
    assert code == 0, err
    score, result = [json.loads(line) for line in out.splitlines()]
    own = OWN_TERMS.get(method, set())
    assert set(score["terms"]) == {"rec"} | own | ({"ts"} if method != "none" else set())
    assert score["loss"] == pytest.approx(sum(score["terms"].values()))
    assert set(score["facts"]) == ({"passed"} if method == "facd" else set())
    assert (", passed " in err) == (method == "facd")
    assert load_network(Path(result["file"])).config == EdsrConfig(channels=4, blocks=2, scale=2)


@pytest.mark.parametrize("method", OWN_TERMS)
def test_the_feature_loss_alone_changes_every_layer_of_the_body(dsclora, teacher: Path, method: str) -> None:
    alone = ("--method", method, "--teacher", teacher, *STUDENT, "--rec", 0, "--ts", 0)
    still = weights(dsclora, "still", *alone, "--learning-rate", 0)
    every_patch = ("--condition", "always") if method == "facd" else ()
    moved = weights(dsclora, "moved", *alone, "--learning-rate", 0.001, *every_patch)
    body = [name for name in still if name.startswith(("head", "body"))]
    assert all(not torch.equal(still[name], moved[name]) for name in body)


@pytest.mark.parametrize(
    ("student", "networks"),
    [
        (("--student", "rcan", "--student-width", 4, "--groups", 1), RcanConfig(4, 1, 2, groups=1, attention=1)),
        (("--student", "span", "--student-width", 4), SpanConfig(channels=4, blocks=1, scale=2)),
    ],
)
def test_student_and_teacher_may_be_of_different_kinds(dsclora, teacher: Path, student, networks) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    save_network(RCAN(RcanConfig(8, 1, 2, groups=3, attention=2)), Path("rcan.safetensors"), training="{}")
    save_network(SPAN(SpanConfig(channels=5, blocks=3, scale=2)), Path("span.safetensors"), training="{}")
    for number, other in enumerate((teacher, "rcan.safetensors", "span.safetensors")):
        arguments = ("--method", "facd", "--teacher", other, *student, "--student-blocks", 1)
        weights(dsclora, f"run{number}", *arguments)
        assert load_network(Path(f"run{number}/best.safetensors")).config == networks


def test_taps_choose_the_compared_maps(dsclora, teacher: Path) -> None:
    arguments = ("--method", "fd", "--teacher", teacher, *STUDENT)
    first = weights(dsclora, "first", *arguments, "--taps", "body.0", "--teacher-taps", "body.1")
    second = weights(dsclora, "second", *arguments, "--taps", "body.1", "--teacher-taps", "body.1")
    assert not torch.equal(first["body.0.body.0.weight"], second["body.0.body.0.weight"])
    refused = dsclora("distill", *arguments, "--data", "photos", "--out", "none", *QUICK, *HERE, "--taps", "body.0",
                      "--teacher-taps", "body.*")  # fmt: skip
    assert refused.code == 2 and "1 feature maps of the student are compared with 4 of the teacher" in refused.err


@pytest.mark.parametrize("method", ["fd", "fakd"])
def test_maps_are_compared_in_the_order_given(dsclora, teacher: Path, method: str) -> None:
    def trained(out: str, own: tuple[str, ...], others: tuple[str, ...]) -> torch.Tensor:
        taps = [word for name in own for word in ("--taps", name)]
        taps += [word for name in others for word in ("--teacher-taps", name)]
        return weights(dsclora, out, "--method", method, "--teacher", teacher, *STUDENT, *taps)["head.0.weight"]

    straight = trained("straight", ("body.0", "body.1"), ("body.1", "body.2"))
    crossed = trained("crossed", ("body.0", "body.1"), ("body.2", "body.1"))
    assert not torch.equal(straight, crossed)
    # The order of the pairs is of no account.
    assert torch.equal(straight, trained("turned", ("body.1", "body.0"), ("body.2", "body.1")))
    assert torch.equal(crossed, trained("crossed too", ("body.1", "body.0"), ("body.1", "body.2")))
    assert torch.equal(straight, trained("pattern", ("body.[01]",), ("body.[12]",)))

    for run, code, expected in (
        ("straight", 0, "kept: "),
        ("turned", 0, "kept: "),
        ("crossed", 2, "error: crossed began in an earlier version, without the order of --taps and --teacher-taps ("),
    ):
        assert dsclora("distill", "--out", run, "--resume", "-q").code == 0
        state = torch.load(Path(run, "state.pt"), weights_only=True)
        del state["meaning"]
        torch.save(state, Path(run, "state.pt"))
        resumed = dsclora("distill", "--out", run, "--resume")
        assert resumed.code == code and expected in resumed.err


@pytest.mark.parametrize(
    ("words", "workers"), [(("--batch", 1), 1), (("--batch", 4, "--accumulate", 4), 1), (("--batch", 2), 2)]
)
def test_facd_refuses_batches_of_one_patch_before_a_folder_is_made(
    dsclora, teacher: Path, words, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(workers))
    code, _, err = dsclora("distill", "--method", "facd", "--teacher", teacher, *STUDENT, "--data", "photos",
                           "--out", "run", *QUICK, *HERE, *words)  # fmt: skip
    assert code == 2 and "raise --batch" in err
    assert not Path("run").exists()
