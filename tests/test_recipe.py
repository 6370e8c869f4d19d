"""Recipes: unique fields, TOML round trips, refused values with their messages, and digests."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsclora_cli import recipe_toml as recipe_toml_module
from dsclora_cli.cli.recipe_options import format_default
from dsclora_cli.errors import UsageError
from dsclora_cli.recipe import EXPERT_OPTIONS, TABLES, DistillOptions, OptionField, Recipe, option_fields
from dsclora_cli.recipe_toml import check_recipe, read_recipe, recipe_digest, recipe_to_toml, with_values

ROOT = Path(__file__).parent.parent
DISTILLATION = Recipe(distill=DistillOptions(base="dscf-x4"))


def value(option: OptionField) -> st.SearchStrategy[Any]:
    """A strategy for one allowed value of a field."""
    if option.choices:
        return st.sampled_from(option.choices)
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    return {
        bool: st.booleans(),
        int: st.integers(int(max(option.min, 0)), int(min(option.max, 2**60))),
        float: st.floats(max(option.min, 0), min(option.max, 1e300)),
        str: text,
        Path: text.map(Path),
    }[option.kind]


def values(option: OptionField) -> st.SearchStrategy[Any]:
    """A strategy for all allowed values of a field."""
    one = value(option)
    if option.count == 2:
        return st.lists(one, min_size=2, max_size=2).map(sorted).map(tuple)
    held = one if option.count else st.lists(one, max_size=3).map(tuple)
    return st.none() | held if option.default is None else held


RECIPES = st.builds(
    with_values,
    st.sampled_from([Recipe(), Recipe(distill=DistillOptions())]),
    st.fixed_dictionaries({option.name: values(option) for option in option_fields()}),
)


def read(tmp_path: Path, text: str) -> Recipe:
    file = tmp_path / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return read_recipe(file)


def test_field_names_are_unique_over_all_tables() -> None:
    names = [option.name for option in option_fields()]
    assert len(names) == len(set(names)) > 40
    assert list(TABLES) == ["network", "data", "degrade", "loss", "optimiser", "run", "distill"]


def test_defaults_pass_their_own_check() -> None:
    check_recipe(Recipe())
    check_recipe(DISTILLATION)


@pytest.mark.slow
@given(recipe=RECIPES)
def test_a_recipe_written_as_toml_reads_back_equal(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = recipe_to_toml(recipe)
    tomllib.loads(text)
    assert read(tmp_path_factory.getbasetemp(), text) == recipe


def test_missing_tables_and_keys_have_their_defaults(tmp_path: Path) -> None:
    recipe = read(tmp_path, '[data]\ndata = ["photos", "DIV2K"]\nlr = "small"\n[optimiser]\nlearning_rate = 1\n')
    assert recipe == with_values(Recipe(), {"data": ("photos", "DIV2K"), "lr": Path("small"), "learning_rate": 1.0})
    assert isinstance(recipe.optimiser.learning_rate, float) and recipe.distill is None
    assert read(tmp_path, "") == Recipe()
    assert read(tmp_path, "[distill]") == Recipe(distill=DistillOptions())


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[optimizer]\n", "optimizer: unknown table, perhaps optimiser"),
        ("[wholly]\n", "wholly: unknown table"),
        ("network = 3\n", "network: is a table"),
        ("steps = 5\n", "steps: stands outside its table, [run]"),
        ("loss = 'l1'\n", "loss: stands outside its table, [loss]"),
        ("[run]\nlearning_rate = 1e-3\n", "[run] learning_rate: belongs to [optimiser]"),
        ("[run]\nstep = 5\n", "[run] step: unknown key, perhaps steps"),
        ("[run]\nxyzzy = 5\n", "[run] xyzzy: unknown key"),
        ("[run]\nsteps = 5.0\n", "[run] steps: 5.0 is not a whole number"),
        ("[run]\nsteps = true\n", "[run] steps: True is not a whole number"),
        ("[run]\nsteps = [5]\n", "[run] steps: [5] is not a whole number"),
        ("[run]\nsteps = 0\n", "[run] steps: 0 is below 1"),
        ("[loss]\nfft = '1'\n", "[loss] fft: '1' is not a number"),
        ("[loss]\nfft = inf\n", "[loss] fft: inf is not finite"),
        ("[loss]\nloss = 'l3'\n", "[loss] loss: 'l3' is not one of l1, l2, charbonnier"),
        ("[degrade]\ndegrade = 1\n", "[degrade] degrade: 1 is not true or false"),
        ("[degrade]\nblur = 0.5\n", "[degrade] blur: 0.5 is not a list of two, each a number"),
        ("[degrade]\nblur = [0, 1, 2]\n", "[degrade] blur: [0, 1, 2] is not a list of two, each a number"),
        ("[degrade]\nquality = [90, 30]\n", "[degrade] quality: 90 to 30 is no range"),
        ("[data]\ndata = 'photos'\n", "[data] data: 'photos' is not a list, each text"),
        ("[data]\nval = 3\n", "[data] val: 3 is not a path"),
        ("[run\n", "not TOML: "),
        (f"a = {'[' * 5000}", "not TOML: "),
        (f"a = {'9' * 5000}", "not TOML: "),
        (f"[run]\nsteps = {'9' * 400}", "[run] steps: 99999999999999999999... has too many digits"),
        (f"[optimiser]\nlearning_rate = {'9' * 400}", "[optimiser] learning_rate: inf is not finite"),
    ],
)
def test_an_error_in_a_recipe_names_file_table_and_key(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path / 'recipe.toml'}: {wrong}") and caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", [each for each in option_fields() if each.kind in {str, Path}], ids=lambda o: o.name)
def test_an_empty_text_is_refused_as_on_the_command_line(tmp_path: Path, option: OptionField) -> None:
    texts = ['""'] if option.count == 1 else ['[""]', '["photos", ""]']
    for text in texts:
        with pytest.raises(UsageError) as caught:
            read(tmp_path, f"[{option.table}]\n{option.name} = {text}\n")
        where = f"{tmp_path / 'recipe.toml'}: [{option.table}] {option.name}"
        assert caught.value.message == f"{where}: is empty; give a value, or leave the key out"


def test_a_recipe_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"\xef\xbb\xbf[run]\r\nsteps = 7\r\n")
    assert read_recipe(tmp_path / "recipe.toml").run.steps == 7


def test_a_missing_recipe_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read /dev/zero: not a regular file"):
        read_recipe(Path("/dev/zero"))
    with pytest.raises(UsageError, match=r"cannot read .*none.toml: No such file"):
        read_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("recipe", "wrong"),
    [
        (with_values(Recipe(), {"scale": 5}), "--scale: 5 is above 4"),
        (with_values(Recipe(), {"learning_rate": float("nan")}), "--learning-rate: nan is not finite"),
        (with_values(Recipe(), {"milestones": (0.5, 2.0)}), "--milestones: 2.0 is above 1"),
        (with_values(Recipe(), {"optimiser": "sgd"}), "--optimiser: 'sgd' is not one of adam, adamw, soap"),
        (with_values(Recipe(), {"data": ("a\udcff",)}), "--data: 'a\\udcff' is not Unicode"),
        (Recipe(distill=DistillOptions()), "adapters need a network to adapt"),
        (Recipe(distill=DistillOptions(method="logits", base="b")), "method logits needs a teacher"),
        (with_values(DISTILLATION, {"rec": 0.0, "ts": 0.0, "ad": 0.0}), "every term of the loss has weight 0"),
        (with_values(DISTILLATION, {"ts": 0.0, "spectrum": 1.0}), "--spectrum compares with the teacher's output"),
    ],
)
def test_values_that_contradict_are_refused(recipe: Recipe, wrong: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_recipe(recipe)
    assert caught.value.message.startswith(wrong) and caught.value.hint


def other(option: OptionField) -> Any:
    """A value that is not the default."""
    if option.choices:
        return next(choice for choice in option.choices if choice != option.default)
    one = {bool: not option.default, int: 3, float: 0.25, str: "other", Path: Path("other")}[option.kind]
    return one if option.count == 1 else (one, one)


def test_the_digest_changes_with_every_option_that_affects_the_weights() -> None:
    assert re.fullmatch("[0-9a-f]{64}", recipe_digest(Recipe())) and recipe_digest(Recipe()) != recipe_digest(
        DISTILLATION
    )
    same = set()
    for option in option_fields():
        changed = with_values(DISTILLATION, {option.name: other(option)})
        assert changed != DISTILLATION
        if recipe_digest(changed) == recipe_digest(DISTILLATION):
            same.add(option.name)
    assert same == {"device", "threads", "compile", "accumulate", "checkpoint_minutes", "max_pixels", "most_skips"}


def test_the_digest_without_files_changes_with_every_option_but_paths() -> None:
    same = set()
    for option in option_fields():
        changed = with_values(DISTILLATION, {option.name: other(option)})
        if recipe_digest(changed, files=False) == recipe_digest(DISTILLATION, files=False):
            same.add(option.name)
    free = {"device", "threads", "compile", "accumulate", "checkpoint_minutes", "max_pixels", "most_skips"}
    assert same - free == {"data", "lr", "val", "init", "init_adapter", "base", "teacher", "teacher_images"}
    words = [with_values(DISTILLATION, {"teacher_images": word}) for word in ("patch", "whole", "ensemble")]
    assert len({recipe_digest(recipe, files=False) for recipe in words}) == 3


def test_a_new_option_at_its_default_leaves_the_digest_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    before = recipe_digest(DISTILLATION)
    all_but_steps = [option for option in option_fields() if option.name != "steps"]
    monkeypatch.setattr(recipe_toml_module, "option_fields", lambda *_: iter(all_but_steps))
    assert recipe_digest(DISTILLATION) == before


def test_with_values_leaves_the_given_recipe_unchanged() -> None:
    before = Recipe()
    after = with_values(before, {"steps": 7, "base": "elsewhere"})
    assert after == replace(before, run=replace(before.run, steps=7)) and before == Recipe()


def test_shipped_recipes_are_valid(tmp_path: Path) -> None:
    written = tmp_path / "written.toml"
    written.write_text(recipe_to_toml(DISTILLATION), encoding="utf-8")
    for path in [written, *(ROOT / "examples" / "recipes").glob("*.toml")]:
        check_recipe(read_recipe(path))


@pytest.mark.parametrize("table", TABLES)
def test_docs_explain_every_key_with_its_default(table: str) -> None:
    page = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    section = page.split(f"### `[{table}]`\n")[1].split("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    assert rows == [(option.name, format_default(option.default) or "") for option in option_fields(table)]


def test_docs_list_the_options_for_experts() -> None:
    page = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"leaves out the options for experts.*?: (.*?)\.\n", page, re.DOTALL)
    assert re.findall(r"`(\w+)`", sentence) == sorted(EXPERT_OPTIONS)
