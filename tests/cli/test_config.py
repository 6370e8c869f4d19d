"""`dsclora config`, and the settings as defaults of options: option, environment, file, default."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dsclora_cli.cli.app import main
from dsclora_cli.settings import SETTINGS, settings_file, unknown_variables
from dsclora_cli.weights.catalog import EMBEDDED


@pytest.fixture(autouse=True)
def known_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of other programs."""
    for variable in unknown_variables():
        monkeypatch.delenv(variable)


@pytest.fixture
def file(private_folders) -> Path:
    """The file with the settings; the folder exists, the file does not."""
    path = private_folders / "config" / "config.toml"
    path.parent.mkdir()
    return path


@pytest.fixture
def plan(dsclora, photo):
    """Run `upscale --dry-run --json` and return the plan of the picture."""

    def run(*arguments: str) -> dict:
        code, out, err = dsclora("upscale", photo, "--dry-run", "--json", *arguments)
        assert code == 0, err
        return json.loads(out)

    return run


def shown(dsclora, name: str) -> tuple[str, str, str]:
    row = json.loads(dsclora("config", "show", name, "--json").out)
    return row["value"], row["origin"], row["place"]


def test_options_come_before_the_environment_before_the_file_before_the_default(plan, file, monkeypatch) -> None:
    assert plan()["output_size"] == [48, 36]
    file.write_text("scale = 2\n")
    assert plan()["output_size"] == [24, 18]
    monkeypatch.setenv("DSCLORA_SCALE", "3")
    assert plan()["output_size"] == [36, 27]
    assert plan("-s", "5")["output_size"] == [60, 45]
    monkeypatch.setenv("DSCLORA_SCALE", "")
    assert plan()["output_size"] == [24, 18]


def test_show_names_the_origin_of_each_value(dsclora, file, monkeypatch) -> None:
    file.write_text('# comment\nquality = 80\n"max-memory" = "2GB"\noffline = true\n')
    monkeypatch.setenv("DSCLORA_MAX_MEMORY", "3GB")
    assert shown(dsclora, "quality") == ("80", "file", f"{file}, line 2")
    assert shown(dsclora, "offline") == ("true", "file", f"{file}, line 4")
    assert shown(dsclora, "max-memory") == ("3GB", "environment", "DSCLORA_MAX_MEMORY")
    assert shown(dsclora, "compression") == ("1", "default", "")
    code, out, err = dsclora("config", "show")
    assert (code, err) == (0, "") and [line.split()[0] for line in out.splitlines()] == ["setting", *SETTINGS]
    assert len(dsclora("config", "show", "--json").out.splitlines()) == len(SETTINGS)


def test_set_and_unset_change_one_line_and_keep_comments(dsclora, file) -> None:
    code, out, err = dsclora("config", "set", "quality", "90")
    assert (code, err) == (0, "") and out == f"quality is 90 in {file}, line 1\n"
    file.write_text("# web\nquality = 90  # small\n\n# machine\ndevice = 'cpu'")
    dsclora("config", "set", "--", "max_memory", "4GB")
    dsclora("config", "set", "quality", "85")
    dsclora("config", "set", "recursive", "true")
    text = "# web\nquality = 85  # small\n\n# machine\ndevice = 'cpu'\nmax-memory = \"4GB\"\nrecursive = true\n"
    assert file.read_text() == text
    code, out, err = dsclora("config", "unset", "device")
    assert code == 0 and file.read_text() == text.replace("device = 'cpu'\n", "")
    code, out, err = dsclora("config", "unset", "device")
    assert code == 0 and out == "" and err == f"note: device was not set in {file}\n"


@pytest.mark.slow
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("quality = 90 # of JPEG = 95", "80", "quality = 80 # of JPEG = 95"),
        ("quality=90#no space", "80", "quality = 80#no space"),
        ('name = "{stem}#1.{ext}"\t# with # two', "{stem}.png", 'name = "{stem}.png"\t# with # two'),
        ("name = '#{stem}.{ext}'", "{stem}#.png", 'name = "{stem}#.png"'),
    ],
)
def test_set_keeps_the_comment_and_the_line_end(dsclora, file, before: str, value: str, after: str, end: str) -> None:
    name = before.partition("=")[0].strip()
    rest = f"offline = true  # here{end}"
    for lines, expected in (
        (f"{before}{end}{rest}", f"{after}{end}{rest}"),
        (f"{rest}{before}", f"{rest}{after}{end}"),
    ):
        file.write_bytes(lines.encode())
        assert dsclora("config", "set", name, value).code == 0
        assert file.read_bytes().decode() == expected
    file.write_bytes(rest.encode())
    assert dsclora("config", "set", "quality", "80").code == 0
    assert file.read_bytes().decode() == f"{rest}quality = 80{end}"
    assert dsclora("config", "unset", "quality").code == 0
    assert file.read_bytes().decode() == rest


def test_every_setting_is_an_option_and_takes_its_own_value_back(dsclora, file) -> None:
    values = {"model": "dsclora-x4", "threads": "2", "max-memory": "4GB", "format": "PNG", "name": 'é "{stem}".{ext}'}
    for name in SETTINGS:
        value = values.get(name) or json.loads(dsclora("config", "show", name, "--json").out)["value"]
        code, _, err = dsclora("config", "set", name, value)
        assert code == 0, err
        assert shown(dsclora, name)[0] == value


def test_a_wrong_value_is_refused_and_not_written(dsclora, file) -> None:
    for name, value in (("quality", "101"), ("device", "gpu"), ("max-memory", "much"), ("offline", "perhaps")):
        code, _, err = dsclora("config", "set", name, value)
        assert code == 2 and err.startswith(f"error: config: {name}: ") and err.count("\n") == 1
        assert f"`dsclora upscale --help` describes --{name}" in err
    late = (
        ("scale", "99", "99 is not above 1 and at most 16 (give a factor such as 2.5)"),
        ("name", "foo", "foo has no suffix (end the template in .{ext})"),
        ("format", "xyz", "xyz: "),
        ("model", "nosuch", "no model is called 'nosuch' ("),
        ("scale", "1", "1 enlarges nothing (give a factor such as 2.5)"),
        ("model", "/nosuch.pth", "there is no file /nosuch.pth ("),
    )
    for name, value, problem in late:
        code, _, err = dsclora("config", "set", name, value)
        assert code == 2 and err.startswith(f"error: config: {name}: {problem}") and err.count("\n") == 1
    code, _, err = dsclora("config", "set", "qualty", "90")
    assert code == 2 and "there is no setting 'qualty'; perhaps quality is meant" in err
    assert dsclora("config", "set", "overwrite", "true").code == 2
    assert not file.exists()


def test_bytes_that_are_no_text_are_refused(dsclora, file) -> None:
    code, _, err = dsclora("config", "set", "name", "\udce9{stem}.{ext}")
    assert code == 2 and "name: the value is no valid text (set the terminal and the locale to UTF-8)" in err
    assert not file.exists()


def test_a_link_stays_a_link(dsclora, file, tmp_path) -> None:
    (tmp_path / "dotfiles.toml").write_text("quality = 80\n")
    file.symlink_to(tmp_path / "dotfiles.toml")
    dsclora("config", "set", "quality", "70")
    assert file.is_symlink() and (tmp_path / "dotfiles.toml").read_text() == "quality = 70\n"


def test_a_line_that_cannot_be_replaced_alone_is_left_to_the_user(dsclora, file) -> None:
    text = 'name = """\n{stem}\n"""\nquality = 80\n'
    file.write_text(text)
    code, _, err = dsclora("config", "set", "name", "{stem}.{ext}")
    assert code == 2 and f"{file}, line 1: name cannot be changed here (edit the file by hand)" in err
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"quality = 90\ndevise = 'cpu'\n", "line 2: there is no setting 'devise'; perhaps device is meant"),
        (b"quality = 90\n\nname = \n", "line 3: Invalid value"),
        (b"quality = [\n", "line 1: Invalid value"),
        (b"quality = 90\nquality = 80\n", "line 2: quality is set in a line above already"),
        (b"[upscale]\nquality = 90\n", "line 1: there is no setting 'upscale'"),
        (b"[quality]\na = 90\n", "line 1: quality is neither a text, nor a number, nor true or false"),
        (b"quality = " + b"9" * 5000 + b"\n", "line 1: Exceeds the limit"),
        (b"quality = " + b"[" * 5000 + b"\n", "line 1: "),
        (b"quality = 90\nname = '\xff'\n", "line 2: not UTF-8"),
        (b"\nquality = 900\n", "line 2: quality: 900 is not in the range"),
        (b"device = true\n", "line 1: device: 'true' is not auto"),
        (
            b"\nscale = 99\n",
            "line 2: scale: 99 is not above 1 and at most 16 (correct it with `dsclora config",
        ),
        (b"offline = 'perhaps'\n", "line 1: offline: 'perhaps' is not true or false ("),
        (b"name = '{width:.2f}.png'\n", "line 1: name: {width:.2f}.png: {width} takes no format ("),
        (b"name = 'foo'\n", "line 1: name: foo has no suffix"),
        (b"format = 'xyz'\n", "line 1: format: xyz: "),
        (b"model = 'nosuch'\n", "line 1: model: no model is called 'nosuch'"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_file_line_and_next_step(dsclora, photo, file, text, problem) -> None:
    file.write_bytes(text)
    code, out, err = dsclora("upscale", photo, "--dry-run", "--json")
    assert code == 2 and err.startswith(f"error: {file}, {problem}") and err.count("\n") == 1 and err.endswith(")\n")
    assert json.loads(out)["error"]["code"] == "usage"
    assert dsclora("upscale", "--help").code == 0 and dsclora("models", "list").code == 0
    assert dsclora("config", "path").out == f"{file}\n"


def test_a_folder_in_place_of_the_file_is_one_line(dsclora, photo, file) -> None:
    file.mkdir()
    code, _, err = dsclora("upscale", photo, "--dry-run")
    assert code == 2 and err.startswith(f"error: cannot read {file}: ") and "check the permissions" in err


def test_a_folder_that_cannot_be_written_is_one_line(dsclora, private_folders) -> None:
    (private_folders / "config").write_text("a file where the folder should be")
    code, _, err = dsclora("config", "set", "quality", "90")
    assert code == 2 and "config.toml" in err and err.count("\n") == 1


def test_a_wrong_variable_is_named(dsclora, photo, monkeypatch) -> None:
    monkeypatch.setenv("DSCLORA_THREADS", "many")
    code, _, err = dsclora("upscale", photo, "--dry-run")
    assert code == 2 and err.startswith(
        "error: DSCLORA_THREADS: threads: 'many' is not a valid whole number of at least 1"
    )


@pytest.mark.parametrize(("name", "value"), [("SCALE", "99"), ("NAME", "foo"), ("FORMAT", "xyz"), ("MODEL", "nosuch")])
def test_a_wrong_variable_is_named_also_where_the_option_is_checked_late(
    dsclora, photo, monkeypatch, name, value
) -> None:
    monkeypatch.setenv(f"DSCLORA_{name}", value)
    code, _, err = dsclora("upscale", photo, "--dry-run")
    assert code == 2 and err.startswith(f"error: DSCLORA_{name}: {name.lower()}: ") and err.count("\n") == 1


def test_a_variable_of_no_setting_has_no_effect_and_is_named(dsclora, photo, monkeypatch) -> None:
    monkeypatch.setenv("DSCLORA_DEVISE", "cuda")
    monkeypatch.setenv("DSCLORA_DEBUG", "0")
    assert dsclora("upscale", photo, "-m", "dsclora-x4", "-q") == (0, "", "")
    code, _, err = dsclora("config", "show")
    assert (code, err) == (0, "note: DSCLORA_DEVISE is the variable of no setting, and has no effect\n")
    lines = dsclora("doctor", "--offline", "--no-self-test").out.splitlines()
    assert any(line.split() == ["DSCLORA_DEVISE", "cuda", "(has", "no", "effect)"] for line in lines)


def test_an_error_names_the_settings_whose_options_it_names(dsclora, photo, file, monkeypatch) -> None:
    file.write_text('name = "{stem}.jpg"\nquality = 90\nformat = "png"\n')
    problem = "--format png and --name {stem}.jpg disagree"
    name, format = f"--name {{stem}}.jpg is from {file}, line 1", f"--format png is from {file}, line 3"
    hint = "(leave one of them out)"
    upscale = ("upscale", photo, "-m", "dsclora-x4")
    assert dsclora(*upscale) == (2, "", f"error: {problem}; {name}; {format} {hint}\n")
    # What the command line gives is not from the file.
    assert dsclora(*upscale, "--format", "png") == (2, "", f"error: {problem}; {name} {hint}\n")
    _, out, _ = dsclora(*upscale, "--json")
    assert json.loads(out)["error"]["message"] == f"{problem}; {name}; {format}"
    file.write_text("strict = true\n")
    monkeypatch.setenv("DSCLORA_DEVICE", "mps")
    problem = "this machine has no MPS device; --device mps is from DSCLORA_DEVICE (use --device "
    code, _, err = dsclora(*upscale)
    assert code == 2 and err.startswith(f"error: {problem}") and "strict" not in err


def test_a_wrong_setting_does_not_matter_where_the_command_line_has_the_option(plan, dsclora, photo, file) -> None:
    file.write_text("scale = 99\nmodel = 'nosuch'\nquality = 900\n")
    assert plan("--scale=2", "-m", "auto", "--quality", "90")["output_size"] == [24, 18]
    code, _, err = dsclora("upscale", photo, "-s", "99", "-m", "auto", "--quality", "90", "--dry-run")
    assert code == 2 and err.startswith("error: --scale 99 is not above 1")


def test_a_broken_catalogue_is_no_fault_of_a_setting(dsclora, photo, file) -> None:
    (file.parent / "weights.toml").write_text("wrong = 1\n")
    file.write_text("model = 'mine'\n")
    code, _, err = dsclora("upscale", photo, "--dry-run")
    assert code == 2 and "weights.toml" in err and "config.toml" not in err


def test_a_whole_number_of_many_digits_is_no_fault_of_the_program(dsclora, photo) -> None:
    code, _, err = dsclora("upscale", photo, "--threads", "9" * 400, "--dry-run")
    assert code == 0 and "bug" not in err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--quality", "abc", "whole number from 1 to 100"),
        ("--scale", "abc", "number"),
        ("--sharp", "abc", "number from 0 to 1"),
        ("--sharp", "nan", "number from 0 to 1"),
        ("--ray-gpus", "-nan", "number of at least 0"),
    ],
)
def test_a_value_that_is_no_number_names_the_numbers(dsclora, photo, option, value, words) -> None:
    code, _, err = dsclora("upscale", photo, option, value)
    assert code == 2 and f"'{value}' is not a valid {words}." in err


def test_options_that_say_the_same_replace_a_setting(plan, file, tmp_path) -> None:
    file.write_text('scale = 2\nmodel = "dsclora-x2"\n')
    assert plan("--width", "30")["output_size"][0] == 30
    own = tmp_path / "own.safetensors"
    own.write_bytes((EMBEDDED / "dsclora-x3.safetensors").read_bytes())
    assert plan("--weights", str(own), "-s", "3")["model"] == "dsclora-x3"


@pytest.mark.parametrize(
    ("words", "suffix"),
    [
        (["-o", "x.png"], ".png"),
        (["-ox.tif"], ".tif"),
        (["--output=out/x.png"], ".png"),
        (["--name", "{stem}.webp"], ".webp"),
        (["-o", "out/"], ".bmp"),
    ],
)
def test_a_name_with_a_suffix_replaces_the_format(plan, file, words, suffix) -> None:
    file.write_text("format = 'bmp'\n")
    assert Path(plan(*words)["output"]).suffix == suffix


def test_a_file_with_a_byte_order_mark_is_read(plan, file) -> None:
    file.write_bytes(b"\xef\xbb\xbfscale = 2\r\n")
    assert plan()["output_size"] == [24, 18]


def test_scores_and_training_take_offline_only(dsclora, file, tmp_path) -> None:
    file.write_text("offline = true\nscale = 9\ndevice = 'cuda:77'\n")
    code, _, err = dsclora("eval", "--dataset", "Set5", "-m", "dsclora-x4")
    # Neither the scale nor the device of the settings counts, and the Hub is not asked.
    assert code == 1 and "Set5 cannot be fetched" in err and "offline" in err


def test_a_setting_takes_part_in_a_real_run(dsclora, photo, file, monkeypatch) -> None:
    file.write_text("scale = 2\nformat = 'jpeg'\nname = '{stem}-large.{ext}'\noffline = true\n")
    assert dsclora("upscale", photo).code == 0
    assert Path("photo-large.jpg").exists()


def test_the_note_about_a_variable_that_comes_first(dsclora, monkeypatch) -> None:
    monkeypatch.setenv("DSCLORA_QUALITY", "50")
    err = dsclora("config", "set", "quality", "90").err
    assert err == "note: DSCLORA_QUALITY in the environment still comes first\n"


def test_setting_names_are_completed(monkeypatch, capsys) -> None:
    monkeypatch.setenv("_DSCLORA_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "dsclora config set max-")
    monkeypatch.setenv("COMP_CWORD", "3")
    monkeypatch.setattr("sys.argv", ["dsclora"])
    assert main([]) == 0 and capsys.readouterr().out.split() == ["max-memory", "max-pixels"]


def test_the_file_is_in_the_configuration_folder() -> None:
    assert settings_file() == Path(os.environ["DSCLORA_CONFIG_DIR"]) / "config.toml"


@pytest.mark.parametrize("words", [["-s", "2"], ["--scale=2"], ["-s2"], ["-qs2"]])
def test_a_setting_is_not_checked_where_the_command_line_has_the_option(
    dsclora, photo: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("DSCLORA_SCALE", "99")
    assert dsclora("upscale", photo, "--dry-run", "--offline", *words).code == 0
    assert dsclora("upscale", photo, "--dry-run", "-mdsclora-x2").code == 2
