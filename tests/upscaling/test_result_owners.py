"""Names of results where pictures with one stem come and go: a result stays with the picture that it was made from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer

import pytest
from batches import EMBEDDED, RepeatUpscaler, save_photo

from dsclora_cli.cli.app import main
from dsclora_cli.config import BatchOptions, SaveOptions, UpscaleOptions
from dsclora_cli.paths import state_dir
from dsclora_cli.upscaling import watch
from dsclora_cli.upscaling.batch import upscale_files
from dsclora_cli.upscaling.dry_run import plan_files
from dsclora_cli.upscaling.manifest import ResultOwners
from dsclora_cli.upscaling.types import FoundInputs, UpscaleCallbacks
from dsclora_cli.upscaling.watch import watch_files

Names = dict[str, tuple[str, str | None]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def options(**batch: object) -> UpscaleOptions:
    return replace(EMBEDDED, save=SaveOptions(format="png"), batch=BatchOptions(**{"output": "o/", **batch}))


def upscale(*inputs: str, **batch: object) -> Names:
    """Status and name of the result by name of the input."""
    results = upscale_files(inputs, options(**batch), upscaler=RepeatUpscaler())
    return {
        Path(each.input).name: (each.status, each.output and Path(each.output).name)
        for each in results
        if each.status != "left-out"
    }


def put(name: str, seed: int) -> Path:
    return save_photo(Path(name), seed=seed)


def test_a_new_picture_with_the_stem_of_another_gets_a_name_of_its_own() -> None:
    put("in/a.jpg", 1)
    assert upscale("in") == {"a.jpg": ("done", "a_x4.png")}
    made = Path("o/a_x4.png").read_bytes()
    put("in/a.bmp", 2)
    assert upscale("in") == {"a.bmp": ("done", "a_x4-2.png"), "a.jpg": ("skipped", "a_x4.png")}
    assert Path("o/a_x4.png").read_bytes() == made != Path("o/a_x4-2.png").read_bytes()
    assert upscale("in") == {"a.bmp": ("skipped", "a_x4-2.png"), "a.jpg": ("skipped", "a_x4.png")}
    assert upscale("in", overwrite=True) == {"a.bmp": ("done", "a_x4-2.png"), "a.jpg": ("done", "a_x4.png")}
    assert Path("o/a_x4.png").read_bytes() == made


def test_the_command_names_both_results(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["upscale", "in", "-f", "png", "-s", "2", "-m", "dsclora-x2", "-o", "o"]
    put("in/a.jpg", 1)
    assert main(arguments) == 0
    put("in/a.bmp", 2)
    capsys.readouterr()
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert str(Path("o/a_x2-2.png")) in shown.out + shown.err
    assert "kept" not in shown.out + shown.err
    assert sorted(path.name for path in Path("o").iterdir()) == ["a_x2-2.png", "a_x2.png"]


@pytest.mark.parametrize("gone", ["a.bmp", "a.gif"])
def test_a_picture_that_goes_moves_no_other_name(gone: str) -> None:
    for seed, suffix in enumerate(["bmp", "gif", "jpg"]):
        put(f"in/a.{suffix}", seed)
    before = upscale("in")
    assert [name for _, name in before.values()] == ["a_x4.png", "a_x4-2.png", "a_x4-3.png"]
    Path("in", gone).unlink()
    assert upscale("in") == {name: ("skipped", made) for name, (_, made) in before.items() if name != gone}


@pytest.mark.parametrize("gone", [["o/a_x4.png"], ["o/a_x4.png", "in/a.bmp"]])
def test_a_result_that_is_removed_moves_no_name(gone: list[str]) -> None:
    for seed, suffix in enumerate(["bmp", "jpg"]):
        put(f"in/a.{suffix}", seed)
    assert upscale("in") == {"a.bmp": ("done", "a_x4.png"), "a.jpg": ("done", "a_x4-2.png")}
    for name in gone:
        Path(name).unlink()
    after = upscale("in")
    assert after.pop("a.jpg") == ("skipped", "a_x4-2.png")
    assert after == ({"a.bmp": ("done", "a_x4.png")} if len(gone) == 1 else {})


def test_a_picture_that_changes_keeps_the_name() -> None:
    for seed, suffix in enumerate(["bmp", "jpg"]):
        put(f"in/a.{suffix}", seed)
    before = upscale("in")
    put("in/a.jpg", 9)
    assert upscale("in") == {"a.bmp": ("skipped", "a_x4.png"), "a.jpg": ("kept", "a_x4-2.png")}
    after = upscale("in", overwrite=True)
    assert {name: made for name, (_, made) in after.items()} == {name: made for name, (_, made) in before.items()}


def test_the_order_of_the_arguments_moves_no_name() -> None:
    for seed, folder in enumerate(["x", "y"]):
        put(f"{folder}/a.png", seed)
    first = {
        each.input: each.output for each in upscale_files(["x/a.png", "y/a.png"], options(), upscaler=RepeatUpscaler())
    }
    again = upscale_files(["y/a.png", "x/a.png"], options(), upscaler=RepeatUpscaler())
    assert {each.input: each.output for each in again if each.status == "skipped"} == first


def test_a_list_a_dry_run_and_shards_name_results_as_the_folder_does() -> None:
    put("in/a.jpg", 1)
    upscale("in")
    put("in/a.bmp", 2)
    Path("list.txt").write_text("in/a.bmp\nin/a.jpg\n")
    plans = {Path(each.input).name: (each.action, each.output) for each in plan_files(["in"], options())}
    assert plans == {"a.bmp": ("upscale", str(Path("o/a_x4-2.png"))), "a.jpg": ("skip", str(Path("o/a_x4.png")))}
    shards = [upscale("in", shard=(number, 3)) for number in (3, 1, 2)]
    assert [names for names in shards if names] == [{"a.bmp": ("done", "a_x4-2.png"), "a.jpg": ("skipped", "a_x4.png")}]
    assert upscale("@list.txt") == {"a.bmp": ("skipped", "a_x4-2.png"), "a.jpg": ("skipped", "a_x4.png")}


def test_a_name_that_looks_numbered_takes_no_result_of_another_picture() -> None:
    for seed, suffix in enumerate(["bmp", "jpg"]):
        put(f"in/a.{suffix}", seed)
    upscale("in", name="{stem}.{ext}")
    put("in/a-2.gif", 5)
    assert upscale("in", name="{stem}.{ext}") == {
        "a-2.gif": ("done", "a-2-2.png"),
        "a.bmp": ("skipped", "a.png"),
        "a.jpg": ("skipped", "a-2.png"),
    }


def without_keys() -> None:
    """Make the records those of a version that did not know the place of the input."""
    for path in (state_dir() / "results").rglob("*.json"):
        record = json.loads(path.read_text())
        del record["source"]
        path.write_text(json.dumps(record))


def move_tree() -> None:
    shutil.move("in", "moved")
    Path("in").symlink_to("moved")


@pytest.mark.parametrize("change", [without_keys, move_tree])
def test_records_of_earlier_versions_and_trees_that_moved_count_by_the_bytes(change: Callable[[], None]) -> None:
    put("in/a.jpg", 1)
    upscale("in")
    change()
    put("in/a.bmp", 2)
    assert upscale("in") == {"a.bmp": ("done", "a_x4-2.png"), "a.jpg": ("skipped", "a_x4.png")}


def test_without_records_existing_files_are_kept() -> None:
    put("in/a.jpg", 1)
    upscale("in")
    put("in/a.bmp", 2)
    shutil.rmtree(state_dir() / "results")
    assert upscale("in") == {"a.bmp": ("kept", "a_x4.png"), "a.jpg": ("done", "a_x4-2.png")}


def test_a_file_that_the_user_names_gets_exactly_this_name() -> None:
    put("a.jpg", 1)
    put("b.jpg", 2)
    for name, output in (("a.jpg", "o/x.png"), ("b.jpg", "o/x-2.png")):
        upscale(name, output=output)
    assert upscale("b.jpg", output="o/x.png") == {"b.jpg": ("kept", "x.png")}


def test_objects_keep_their_names_too() -> None:
    put("in/a.jpg", 1)
    put("in/a.bmp", 2)
    from dsclora_cli.storage.objects import write_object
    from dsclora_cli.storage.places import parse_place

    write_object(parse_place("memory://names/in/a.jpg"), Path("in/a.jpg"))
    here = {"output": "memory://names/o/"}
    assert upscale("memory://names/in/", **here) == {"a.jpg": ("done", "a_x4.png")}
    write_object(parse_place("memory://names/in/a.bmp"), Path("in/a.bmp"))
    for status in ("done", "skipped"):
        assert upscale("memory://names/in/", **here) == {
            "a.bmp": (status, "a_x4-2.png"),
            "a.jpg": ("skipped", "a_x4.png"),
        }
    assert upscale("memory://names/in/", **here, overwrite=True) == {
        "a.bmp": ("done", "a_x4-2.png"),
        "a.jpg": ("done", "a_x4.png"),
    }


def test_files_are_read_for_their_checksums_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        put(f"in/a.{['bmp', 'gif', 'jpg'][seed]}", seed)
    upscale("in")
    read: list[Path] = []
    real = ResultOwners._digests_like
    monkeypatch.setattr(ResultOwners, "_digests_like", lambda self, file: read.append(file) or real(self, file))
    upscale("in")
    assert not read, "records name their inputs"


class TestWatch:
    """A picture that arrives while a watch runs."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("watchfiles")
        monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.1)
        monkeypatch.setattr(watch, "SETTLE_SECONDS", 0.2)
        monkeypatch.setattr(watch, "PictureUpscaler", lambda _: RepeatUpscaler())

    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize("is_recorded", [False, True])
    def test_a_late_picture_gets_a_name_of_its_own(
        self, overwrite: bool, is_recorded: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not is_recorded:
            Path("no folder").touch()
            monkeypatch.setenv("DSCLORA_STATE_DIR", "no folder")
        put("in/a.jpg", 1)
        results = watch_files(["in"], options(overwrite=overwrite), UpscaleCallbacks(), Event())
        assert next(results).output == str(Path("o/a_x4.png"))
        made = Path("o/a_x4.png").read_bytes()
        timer = Timer(0.15, lambda: put("in/a.bmp", 2))
        timer.start()
        late = next(results)
        timer.join()
        assert (late.status, late.output) == ("done", str(Path("o/a_x4-2.png")))
        assert any("named a_x4-2.png" in warning for warning in late.warnings)
        assert Path("o/a_x4.png").read_bytes() == made
        results.close()
        if is_recorded and not overwrite:
            again = watch_files(["in"], options(), UpscaleCallbacks(), Event())
            assert {(each.status, each.output) for each in (next(again), next(again))} == {
                ("skipped", str(Path("o/a_x4.png"))),
                ("skipped", str(Path("o/a_x4-2.png"))),
            }
            again.close()

    def test_the_results_of_a_picture_that_has_gone_are_forgotten(self) -> None:
        path = put("in/a.jpg", 1)
        results = watch_files(["in"], options(), UpscaleCallbacks(), Event())
        next(results)
        results.close()
        waves = watch._Waves(["in"], options())
        while not (found := waves.take()).inputs:
            assert isinstance(found, FoundInputs)
        waves._made["key"] = found.inputs[0].key
        path.unlink()
        waves.take()
        assert not waves._made
