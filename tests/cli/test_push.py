"""`dsclora push` against a Hub on this machine, through the Hub's own client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_upload_server import TOKEN, UploadHub
from networks import small
from PIL import Image
from training import photographs

from dsclora_cli import hub_upload
from dsclora_cli.weights import hub_models
from dsclora_cli.weights.checkpoint import save_network

REPO, FILE = "me/my-x2", "my-x2.safetensors"
WEIGHTS_FIRST = [FILE, "config.json", "README.md"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    """A Hub where `me` may write, and the token of `me`."""
    with UploadHub(REPO, {}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        # The client reads HF_ENDPOINT when imported; before version 1, the URL of a commit must begin with the value.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        for module in ("constants", "file_download"):
            monkeypatch.setattr(f"huggingface_hub.{module}.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub_models._obtain.cache_clear()
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A network of the user."""
    save_network(small(), tmp_path / "own.safetensors", "")
    return tmp_path / "own.safetensors"


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch):
    """A user at the terminal, with one answer for every question."""

    def answer_all(answer: str) -> None:
        monkeypatch.setattr("dsclora_cli.cli.console.can_ask", lambda: True)
        monkeypatch.setattr("builtins.input", lambda: answer)

    return answer_all


def test_a_pushed_network_is_usable_at_once(dsclora, hub, own, photo) -> None:
    code, out, err = dsclora("push", own, REPO, "--licence", "mit", "--yes")
    assert (code, err) == (0, "")
    sizes = {path: len(data) for path, data in hub.files.items()}
    assert [line.partition(":")[0] for line in out.splitlines()[:3]] == WEIGHTS_FIRST
    assert out.splitlines()[3:] == [f"{hub.url}/{REPO} at {hub.commit}", f"use: dsclora upscale photo.jpg -m {REPO}"]
    assert set(sizes) == {".gitattributes", *WEIGHTS_FIRST}
    assert hub.files[FILE] == own.read_bytes()
    assert hub.commits == ["Upload network with dsclora"]

    assert dsclora("upscale", photo, "--weights", own, "-o", "expected.png").code == 0
    code, _, err = dsclora("upscale", photo, "-m", REPO, "-o", "large.png")
    assert code == 0 and f"{REPO}: {FILE} (licence mit) is used for the first time" in err
    assert Path("large.png").read_bytes() == Path("expected.png").read_bytes()


@pytest.mark.slow
def test_a_trained_run_and_a_distilled_adapter_travel(dsclora, hub, tmp_path, photo) -> None:
    pictures = photographs(tmp_path / "holiday-2019")
    small_run = ["--data", pictures, "--steps", 2, "--validate", 2, "--batch", 2, "--patch", 8, "--val-share", 0.3]
    shape = ["--channels", 4, "--blocks", 1, "--compile", "off", "--device", "cpu"]
    assert dsclora("train", *small_run, *shape, "--scale", 2, "--out", "run").code == 0
    code, _, err = dsclora("push", "run", REPO, "--yes", "--licence", "mit")
    assert code == 0 and "left out of the recipe, because the values are paths: data" in err
    card = hub.files["README.md"].decode()
    assert "PSNR-Y on the held-out pictures of the training: " in card and "steps = 2\n" in card
    assert hub.files[FILE] == Path("run/best.safetensors").read_bytes()
    assert dsclora("upscale", photo, "-m", REPO, "-o", "large.png").code == 0

    distilled = ["distill", "--base", "dsclora-x2", "--scale", 2, *small_run, "--compile", "off", "--device", "cpu"]
    assert dsclora(*distilled, "--learning-rate", 0.001, "--ts", 0, "--ad", 0, "--out", "adapted").code in {0, 1}
    # Two steps may be worse than the base; the last weights are an adapter all the same.
    file = next(path for path in Path("adapted").glob("*.safetensors"))
    hub.repo, hub.exists, hub.files = "me/for-photos", False, {}
    code, _, err = dsclora("push", file, "me/for-photos", "--yes", "--licence", "mit")
    assert code == 0, err
    assert "adapter (ConvLoRA) for `dsclora-x2`" in hub.files["README.md"].decode()
    sent = b"".join((*hub.bodies, *hub.files.values()))
    assert str(tmp_path).encode() not in sent and b"holiday-2019" not in sent
    hub_models._obtain.cache_clear()
    assert dsclora("upscale", photo, "-m", "me/for-photos", "-o", "hub.png").code == 0
    assert dsclora("upscale", photo, "--adapter", file, "-o", "own.png").code == 0
    assert Path("hub.png").read_bytes() == Path("own.png").read_bytes()


def test_requests_tell_nothing_of_the_machine(dsclora, hub, own, monkeypatch) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", False)
    assert dsclora("push", own, REPO, "--yes").code == 0
    assert {agent.partition("/")[0] for agent in hub.agents} == {"dsclora"}
    assert str(own.parent).encode() not in b"".join((*hub.bodies, *hub.files.values()))
    assert not any("agent" in request for request in hub.requests)


def test_the_question_shows_everything_first(dsclora, hub, own, at_terminal) -> None:
    at_terminal("n")
    code, out, err = dsclora("push", own, REPO, "--private")
    assert code == 0 and out.endswith("nothing was uploaded\n")
    assert f"Create the private repository {REPO} and upload 3 files? [y/N]" in err
    assert f"repository  {hub.url}/{REPO} (new, private)" in out and "  | # my-x2" in out
    assert "no licence is stated" in err
    assert [line.split()[-1] for line in out.splitlines() if line.startswith(tuple(WEIGHTS_FIRST))] == ["new"] * 3
    assert not hub.exists and not any(request.startswith("POST") for request in hub.requests)

    at_terminal("y")
    code, out, err = dsclora("push", own, REPO, "--private")
    assert code == 0 and hub.private and hub.files[FILE] == own.read_bytes()
    assert err.count("no licence is stated") == 1 and out.endswith(f"use: dsclora upscale photo.jpg -m {REPO}\n")


def test_a_dry_run_needs_neither_token_nor_internet(dsclora, own, monkeypatch) -> None:
    code, out, _ = dsclora("push", own, REPO, "--dry-run", "--offline")
    assert code == 0 and out.endswith("nothing was uploaded\n") and "  | # my-x2" in out
    planned = json.loads(dsclora("push", own, REPO, "--dry-run", "--json").out)
    assert (planned["status"], planned["creates"], planned["commit"]) == ("planned", None, None)
    assert [file["path"] for file in planned["files"]] == WEIGHTS_FIRST
    assert planned["sha256"] == planned["files"][0]["sha256"] == hashlib.sha256(own.read_bytes()).hexdigest()


def test_json_reports_the_upload(dsclora, hub, own) -> None:
    code, out, _ = dsclora("push", own, REPO, "--yes", "--json", "--licence", "mit")
    pushed = json.loads(out)
    assert code == 0 and (pushed["status"], pushed["creates"], pushed["private"]) == ("pushed", True, False)
    assert (pushed["version"], pushed["commit"], pushed["licence"]) == (1, hub.commit, "mit")
    assert {file["change"] for file in pushed["files"]} == {"new"}
    config = json.loads(hub.files["config.json"])
    assert (config["kind"], config["arch"], config["scale"], config["sha256"]) == (
        "network",
        "span",
        2,
        pushed["sha256"],
    )


@pytest.mark.slow
def test_a_second_push_changes_only_what_differs(dsclora, hub, own, tmp_path, photo) -> None:
    assert dsclora("push", own, REPO, "--yes").code == 0
    assert dsclora("upscale", photo, "-m", REPO, "-o", "first.png").code == 0
    before = hub.commit
    code, out, _ = dsclora("push", own, REPO, "--yes", "--json")
    assert code == 0 and json.loads(out)["status"] == "unchanged" and hub.commit == before

    save_network(small(seed=1), own, "")
    code, _, err = dsclora("push", own, REPO, "--yes")
    assert code == 1 and f"{REPO} exists with other content: {FILE}, config.json, README.md (choose another" in err
    assert hub.commit == before
    code, out, _ = dsclora("push", own, REPO, "--yes", "--overwrite", "--json")
    assert code == 0 and {file["change"] for file in json.loads(out)["files"]} == {"replaced"}
    # The owner's machine had trusted the first upload.
    code, _, err = dsclora("upscale", photo, "-m", REPO, "-o", "second.png")
    assert code == 0, err
    assert np.any(np.asarray(Image.open("first.png")) != np.asarray(Image.open("second.png")))


def test_a_repository_of_somebody_elses_weights_is_left_alone(dsclora, hub, own) -> None:
    hub.exists, hub.files = True, {"README.md": b"mine", "other.pth": b"x"}
    code, out, err = dsclora("push", own, REPO, "--yes", "--json")
    assert code == 1 and "exists with other content: README.md, other.pth (choose another name, or give" in err
    assert json.loads(out)["error"]["code"] == "upload-failed"
    hub.files = {"README.md": b"mine"}
    code, out, _ = dsclora("push", own, REPO, "--yes", "--json", "--overwrite")
    assert code == 0 and [file["change"] for file in json.loads(out)["files"]] == ["new", "new", "replaced"]
    assert json.loads(out)["creates"] is False


def test_a_public_repository_does_not_become_private(dsclora, hub, own) -> None:
    hub.exists = True
    code, _, err = dsclora("push", own, REPO, "--yes", "--private")
    assert code == 1 and f"error: {REPO} exists and is public (" in err and not hub.commits


def test_without_a_token_nothing_is_asked_of_the_hub(dsclora, hub, own, monkeypatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = dsclora("push", own, REPO, "--yes")
    assert code == 1 and err.startswith(f"error: there is no token for {hub.url} (make one that may write at {hub.url}")
    assert "hf auth login" in err and hub.requests == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "read"}, "error: the token of me may only read (make one with the role write at"),
        ({"may_write": False}, f"error: the token may not write to {REPO}: You don't have the rights to write under"),
        ({"may_write": False, "exists": True}, f"error: the token may not write to {REPO}: You don't have the rights"),
        ({"fails": {"/batch": 403}}, f"error: the token may not write to {REPO}: as the test wants ("),
        ({"fails": {"/commit/main": 412}}, f"error: {REPO} was changed by somebody else at the same time: as the test"),
        (
            {"fails": {"/commit/main": 413}},
            "answered 413 for the upload to me/my-x2: as the test wants (try again later)",
        ),
        ({"fails": {"/create": 409}}, f"error: {REPO} was changed by somebody else at the same time"),
    ],
)
def test_a_refusal_of_the_hub_is_one_line(dsclora, hub, own, change, message) -> None:
    for name, value in change.items():
        setattr(hub, name, value)
    code, out, err = dsclora("push", own, REPO, "--yes", "--licence", "mit")
    assert code == 1 and message in err and err.count("\n") == 1 and out == ""
    assert hub.commits == []


def test_a_wrong_token_is_named(dsclora, hub, own, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    code, _, err = dsclora("push", own, REPO, "--yes", "--licence", "mit")
    assert code == 1 and err == (
        f"error: {hub.url} does not accept the token (check HF_TOKEN, or log in again: hf auth login)\n"
    )


def test_a_licence_that_the_hub_does_not_know_is_refused_before_the_weights_travel(dsclora, hub, own) -> None:
    hub.exists = True
    code, _, err = dsclora("push", own, REPO, "--yes", "--licence", "my-own")
    assert code == 1 and 'refuses the model card: "license" must be one of [apache-2.0, mit, ...] (check' in err
    assert not hub.stored
    code, _, err = dsclora("push", own, REPO, "--yes", "--licence", "My Own")
    assert code == 2 and "--licence 'My Own' is no name of a licence (write the Hub's short name" in err


def test_no_internet_and_offline_are_told_apart(dsclora, own, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code, _, err = dsclora("push", own, REPO, "--yes", "--offline", "--licence", "mit")
    assert code == 1 and "error: me/my-x2 cannot be reached, because the program is offline (run without" in err
    code, _, err = dsclora("push", own, REPO, "--yes", "--licence", "mit")  # the tests' Hub is a closed door
    assert code == 1 and "error: cannot reach http://127.0.0.1:9 for the upload to me/my-x2 (check the internet" in err


def test_a_silent_hub_is_given_up(dsclora, hub, own, monkeypatch) -> None:
    monkeypatch.setattr(hub_upload, "ANSWER_SECONDS", 0.3)
    hub.silent = True
    code, _, err = dsclora("push", own, REPO, "--yes", "--licence", "mit")
    assert code == 1 and f"error: {hub.url} did not answer in time for the upload to {REPO} (" in err


def test_the_hub_going_away_during_the_commit_leaves_a_repository_to_push_to_again(dsclora, hub, own) -> None:
    hub.fails = {"/preupload/main": 401}
    assert dsclora("push", own, REPO, "--yes", "--licence", "mit").code == 1
    assert hub.exists and FILE not in hub.files
    hub.fails = {}
    assert dsclora("push", own, REPO, "--yes", "--licence", "mit").code == 0
    assert len(hub.created) == 1 and hub.files[FILE] == own.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.safetensors", REPO), "there is no file or folder absent.safetensors (give the folder of a run, or a"),
        (("{own}", "my-x2"), "'my-x2' is no name of a repository on the Hub (write USER/REPO)"),
        (("{own}", "me/my-x2/file"), "'me/my-x2/file' is no name of a repository on the Hub (write USER/REPO)"),
        (("{folder}", REPO), "holds no finished weights (best.safetensors or adapter.safetensors) (train longer"),
    ],
)
def test_a_wrong_argument_is_refused(dsclora, own, tmp_path, arguments, message) -> None:
    (tmp_path / "empty").mkdir()
    given = [argument.format(own=own, folder=tmp_path / "empty") for argument in arguments]
    code, _, err = dsclora("push", *given, "--yes")
    assert code == 2 and message in err


def test_a_question_that_cannot_be_asked_is_an_error(dsclora, own) -> None:
    for more, reason in (([], "stdin is no terminal"), (["--json"], "--json is given")):
        code, _, err = dsclora("push", own, REPO, *more)
        assert code == 2 and f"cannot ask for confirmation: {reason} (add --yes, or --dry-run to look only)" in err


def test_weights_of_the_catalogue_are_not_pushed(dsclora) -> None:
    path = dsclora("models", "path", "dsclora-x2").out.strip()
    code, _, err = dsclora("push", path, REPO, "--dry-run")
    assert code == 2 and "holds dsclora-x2 of the catalogue, which is published already" in err


def test_quiet_writes_nothing(dsclora, hub, own) -> None:
    assert dsclora("push", own, REPO, "--yes", "--quiet", "--licence", "mit") == (0, "", "")
