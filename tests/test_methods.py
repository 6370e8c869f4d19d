"""Methods of other packages: found without an import, used by name, explained where broken, installed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from installations import ROOT, build, new_environment, run, try_run

from dsclora_cli.cli.app import main
from dsclora_cli.cli.completion import complete_method
from dsclora_cli.methods import DISTILL_METHODS, find_plugins, method_names
from dsclora_cli.models.edsr import EDSR, EdsrConfig
from dsclora_cli.recipe_toml import read_recipe
from dsclora_cli.weights.checkpoint import load_network, save_network

EXAMPLE = ROOT / "examples" / "method_plugin"
QUICK = (
    "--student",
    "edsr",
    "--student-width",
    "4",
    "--student-blocks",
    "1",
    "-s",
    "2",
    "--patch",
    "8",
    "--batch",
    "4",
)
HERE = ("--steps", "2", "--validate", "2", "--device", "cpu", "--compile", "off", "--threads", "1", "--data", "photos")
MEAN = """
def build(context):
    return context.student_setup(lambda batch: {"mean": batch.output.mean() ** 2}, maps="projected")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a package of one module for this test: `install(package, code, method="module:function")`."""
    places = tmp_path / "site"
    places.mkdir()
    monkeypatch.syspath_prepend(places)

    def make(package: str, code: str, **methods: str) -> None:
        module = package.replace("-", "_")
        (places / f"{module}.py").write_text(code)
        monkeypatch.delitem(sys.modules, module, raising=False)
        info = places / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        entries = "\n".join(f"{name} = {function}" for name, function in methods.items())
        (info / "entry_points.txt").write_text(f"[dsclora.methods]\n{entries}\n")

    return make


@pytest.fixture
def distill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run `dsclora distill --method NAME` with a tiny teacher, in a folder with six pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    prepare()

    def distilled(*arguments: str) -> tuple[int, str, str]:
        code = main(["distill", *QUICK, *HERE, *arguments])
        return code, *capsys.readouterr()

    return distilled


def prepare() -> None:
    """Write a tiny teacher and a folder of pictures into the current folder."""
    from training import photographs

    photographs(Path("photos"))
    torch.manual_seed(0)
    save_network(EDSR(EdsrConfig(channels=6, blocks=1, scale=2)), Path("teacher.safetensors"), training="{}")


def test_without_plugins_there_are_our_methods(install) -> None:
    assert find_plugins() == () and method_names() == DISTILL_METHODS


@pytest.mark.slow
def test_a_method_of_another_package_trains_and_resumes(install, distill) -> None:
    install("dsclora-mean", MEAN, mean="dsclora_mean:build")
    code, out, err = distill("--method", "mean", "--teacher", "teacher.safetensors", "--out", "run", "--json")
    assert code == 0, err
    score, result = [json.loads(line) for line in out.splitlines()]
    assert set(score["terms"]) == {"rec", "ts", "mean"}
    assert load_network(Path(result["file"])).config == EdsrConfig(channels=4, blocks=1, scale=2)
    recipe = read_recipe(Path("run/recipe.toml"))
    assert recipe.distill is not None and recipe.distill.method == "mean"
    assert distill("--out", "run", "--resume")[0] == 0


def test_help_completion_and_doctor_show_the_method(install, distill, capsys, monkeypatch) -> None:
    install("dsclora-mean", MEAN, mean="dsclora_mean:build")
    assert complete_method("m") == [("mean", "of the package dsclora-mean")]
    assert ("fakd", "of dsclora") in complete_method("")
    # The help is made when the module of the command is imported: by users in a new process.
    monkeypatch.delitem(sys.modules, "dsclora_cli.cli.train", raising=False)
    assert main(["distill", "--help"]) == 0
    assert "|none|mean" in capsys.readouterr().out.replace("\n", "")
    assert main(["doctor", "--offline", "--no-self-test"]) == 0
    assert "Methods of other packages\n  mean  dsclora-mean 1.2\n" in capsys.readouterr().out
    assert "dsclora_mean" not in sys.modules


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import not_there", "cannot be imported: ModuleNotFoundError: No module named 'not_there'"),
        ("raise SystemExit(0)", "cannot be imported: SystemExit: 0"),
        ("", "cannot be imported: AttributeError: module 'dsclora_bad' has no attribute 'build'"),
        ("build = 3", "cannot be used: dsclora_bad:build is no function"),
        ("def build(context): return None", "returned NoneType, no TrainingSetup"),
        ("def build(context): return 1 / 0", "failed: ZeroDivisionError: division by zero"),
        ("def build(context): raise SystemExit(0)", "failed: SystemExit: 0"),
        (
            "def build(context): return context.student_setup(lambda batch: {}, maps='wrong')",
            "failed: ValueError: maps of student_setup is 'wrong', not one of none, plain, projected",
        ),
    ],
)
def test_a_broken_method_is_one_line(install, distill, code: str, problem: str) -> None:
    install("dsclora-bad", code, bad="dsclora_bad:build")
    status, _, err = distill("--method", "bad", "--teacher", "teacher.safetensors", "--out", "run", "-q")
    assert status in {1, 2} and err.count("\n") == 1, err
    assert err.startswith(f"error: method bad of the package dsclora-bad 1.2 {problem}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        ("{'x': batch.nothing}", "failed: AttributeError: 'DistillBatch' object has no attribute 'nothing'"),
        ("sys.exit()", "failed: SystemExit (report"),
        ("None", "returned NoneType as its loss, no dict of terms by name"),
        ("batch.output.mean()", "returned Tensor as its loss, no dict of terms by name"),
        ("{'x': (batch.output - batch.hr).abs()}", "returned a loss term x of the shape (4, 3, 16, 16), no scalar"),
        ("{'x': batch.output.mean()[None]}", "returned a loss term x of the shape (1,), no scalar"),
        ("{'x': 0.5}", "returned a loss term x of the type float, no tensor"),
        (
            "{'x': batch.output.mean() * 1j}",
            "returned a loss term x of the type torch.complex64, no floating-point number",
        ),
        ("{'x': torch.tensor(3)}", "returned a loss term x of the type torch.int64, no floating-point number"),
        ("{'x': batch.teacher_output.mean()}", "returned a loss term x without a gradient: it does not depend on"),
        ("{1: batch.output.mean()}", "returned a loss term with the name 1, no text"),
        ("{'rec': batch.output.mean()}", "returned a loss term called rec, a name of a term of dsclora"),
        ("{'ts': batch.output.mean()}", "returned a loss term called ts, a name of a term of dsclora"),
    ],
)
def test_a_method_with_a_broken_loss_is_one_line(install, distill, loss: str, problem: str) -> None:
    code = f"import sys, torch\ndef build(context): return context.student_setup(lambda batch: {loss})"
    assert_blamed(install, distill, code, problem)
    # The loss is checked in the first step.
    assert not list(Path("run").glob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ("logged_only=('mean', 'rec', 'ts')", "returned a loss without a gradient: "),
        ("logged_only='mean'", "returned a setup with the text 'mean' as logged_only, no tuple of names"),
        ("loss_terms=lambda batch: None", "returned NoneType as its loss, no dict of terms by name"),
        ("module=None", "returned a setup with NoneType as module, no torch.nn.Module"),
        ("file_name='../best.safetensors'", "returned a setup with '../best.safetensors' as file_name, which is no"),
        ("to_network=lambda average: None", "returned NoneType from to_network, no Network"),
        ("to_network=lambda average: 1 / 0", "failed: ZeroDivisionError: division by zero"),
        ("save=lambda average, path, origin: sys.exit()", "failed: SystemExit (report"),
        ("save=lambda average, path, origin: open('/missing/file')", "failed: FileNotFoundError: [Errno 2]"),
        ("save=lambda average, path, origin: None", "wrote no file in save: run/last.safetensors is missing"),
    ],
)
def test_a_method_with_a_broken_setup_is_one_line(install, distill, changes: str, problem: str) -> None:
    code = f"""
import sys
from dataclasses import replace
{MEAN.replace("build", "usual")}
def build(context):
    return replace(usual(context), {changes})
"""
    assert_blamed(install, distill, code, problem)


def assert_blamed(install, distill, code: str, problem: str) -> None:
    """Assert that a run with a method of this code ends with one line about the package."""
    install("dsclora-bad", code, bad="dsclora_bad:build")
    status, _, err = distill("--method", "bad", "--teacher", "teacher.safetensors", "--out", "run", "-q")
    assert status == 1 and err.count("\n") == 1, err
    assert err.startswith(f"error: method bad of the package dsclora-bad 1.2 {problem}")
    assert "the authors of dsclora-bad" in err


def test_a_method_whose_loss_is_never_finite_has_trained_nothing(install, distill) -> None:
    loss = "lambda batch: {'bad': batch.output.mean() * float('nan')}"
    install("dsclora-bad", f"def build(context): return context.student_setup({loss})", bad="dsclora_bad:build")
    status, _, err = distill("--method", "bad", "--teacher", "teacher.safetensors", "--out", "run", "-q")
    problem = (
        "nothing was trained: loss or gradient was not finite in all 2 steps; in the last step bad; finite: rec, ts"
    )
    assert (
        status == 1 and err.startswith(f"error: {problem} (look at how bad is computed, or ") and err.count("\n") == 1
    )
    assert not list(Path("run").glob("*.safetensors"))


@pytest.mark.parametrize(("weight", "which"), [("1e39", "fd; finite: rec, ts"), ("1e30", "the gradient; finite: ")])
def test_the_advice_names_the_weight_of_the_term_that_is_not_finite(distill, weight: str, which: str) -> None:
    method = ("--method", "fd", "--feature-weight", weight, "--teacher", "teacher.safetensors")
    status, _, err = distill(*method, "--out", "run", "-q")
    assert status == 1 and f"in the last step {which}" in err
    assert "start a new run with a lower --learning-rate, a lower --feature-weight, or with --amp off" in err


def test_plain_maps_of_other_widths_that_fail_get_the_hint_of_projected_maps(install, distill) -> None:
    code = """
def build(context):
    def loss(batch):
        return {"near": sum((own - wanted).abs().mean() for own, wanted in batch.map_pairs())}
    return context.student_setup(loss, maps="MAPS")
"""
    install("dsclora-near", code.replace("MAPS", "plain"), near="dsclora_near:build")
    install("dsclora-close", code.replace("MAPS", "projected"), close="dsclora_close:build")
    run = ("--teacher", "teacher.safetensors", "--out", "run", "-q")
    status, _, err = distill("--method", "near", *run)
    assert status == 1 and err.count("\n") == 1 and "failed: RuntimeError: The size of tensor a (4) must match" in err
    hint = 'the feature maps differ in channels (student 4, teacher 6): student_setup with maps="projected" brings'
    assert f"({hint} the student's maps to the teacher's; or report the error to the authors of dsclora-near)" in err
    assert distill("--method", "close", *run) == (0, "", "")


@pytest.mark.parametrize("is_there", [False, True])
def test_a_run_that_failed_in_the_first_step_leaves_no_run(install, distill, is_there: bool) -> None:
    if is_there:
        Path("run").mkdir()
    code = "def build(context): return context.student_setup(lambda batch: {'x': 1 / SIZE})"
    install("dsclora-bad", f"SIZE = 0\n{code}", bad="dsclora_bad:build")
    run = ("--method", "bad", "--teacher", "teacher.safetensors", "--out", "run", "-q")
    assert "failed: ZeroDivisionError" in distill(*run)[2]
    assert not is_there or not list(Path("run").iterdir())
    assert Path("run").exists() == is_there
    sys.modules["dsclora_bad"].__dict__.update(build=lambda context: context.student_setup())
    assert distill(*run) == (0, "", "")


def test_a_run_that_failed_after_a_score_stays(install, distill) -> None:
    code = """
calls = []
def loss(batch):
    calls.append(1)
    return {"mean": batch.output.mean() * (1 / (len(calls) < 3))}
def build(context): return context.student_setup(loss)
"""
    install("dsclora-bad", code, bad="dsclora_bad:build")
    run = ("--method", "bad", "--teacher", "teacher.safetensors", "--out", "run", "-q", "--steps", "4")
    assert "failed: ZeroDivisionError" in distill(*run)[2]
    assert {"last.safetensors", "state.pt", "recipe.toml"} <= {path.name for path in Path("run").iterdir()}


@pytest.mark.slow
def test_a_loss_may_be_zero_for_a_batch_and_log_counts(install, distill) -> None:
    code = """
import torch
from dataclasses import replace
def build(context):
    terms = lambda batch: {"zero": batch.hr.new_zeros(()), "count": torch.tensor(3)}
    return replace(context.student_setup(terms), logged_only=("count",))
"""
    install("dsclora-zero", code, zero="dsclora_zero:build")
    teacher = ("--teacher", "teacher.safetensors")
    code, out, err = distill("--method", "zero", *teacher, "--out", "run", "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[0])["facts"] == {"count": 3.0}


@pytest.mark.slow
def test_what_a_method_prints_does_not_spoil_the_json(install, distill) -> None:
    code = """
from dataclasses import replace
print("at import")
def build(context):
    print("in build")
    def loss(batch):
        print("in loss")
        return {"mean": batch.output.mean()}
    setup = context.student_setup(loss)
    def save(*arguments):
        print("in save")
        setup.save(*arguments)
    return replace(setup, save=save)
"""
    install("dsclora-loud", code, loud="dsclora_loud:build")
    teacher = ("--teacher", "teacher.safetensors")
    code, out, err = distill("--method", "loud", *teacher, "--out", "run", "--json", "-q")
    assert code == 0 and len([json.loads(line) for line in out.splitlines()]) == 2
    assert list(dict.fromkeys(err.splitlines())) == ["at import", "in build", "in loss", "in save"]


def test_a_method_that_needs_a_teacher_says_so(install, distill) -> None:
    install("dsclora-mean", MEAN, mean="dsclora_mean:build")
    status, _, err = distill("--method", "mean", "--out", "run", "-q")
    assert (status, err) == (2, "error: method mean needs a teacher (name its weights: --teacher FILE|NAME)\n")
    assert not Path("run").exists()


@pytest.mark.slow
def test_a_name_of_ours_or_of_two_packages_is_refused(install, distill, capsys) -> None:
    install("dsclora-fd", MEAN, fd="dsclora_fd:build")
    install("dsclora-one", MEAN, mean="dsclora_one:build")
    install("dsclora-two", MEAN, mean="dsclora_two:build")
    teacher = ("--teacher", "teacher.safetensors", "--out", "run", "-q")
    clash = "method fd of the package dsclora-fd: dsclora has a method fd of its own"
    hint = "uninstall dsclora-fd, or rename the entry in dsclora.methods"
    assert distill("--method", "fd", *teacher)[::2] == (2, f"error: {clash} ({hint})\n")
    status, _, err = distill("--method", "mean", *teacher)
    assert status == 2 and "method mean of the package dsclora-one, dsclora-two: 2 packages add a method mean" in err
    # Other methods are not disturbed.
    assert distill("--method", "logits", *teacher)[0] == 0
    assert main(["doctor", "--offline", "--no-self-test", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["methods"]
    assert [(each["name"], each["package"], bool(each["problem"])) for each in found] == [
        ("fd", "dsclora-fd", True),
        ("mean", "dsclora-one", True),
        ("mean", "dsclora-two", True),
    ]


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("not_there:build", "there is no module not_there"),
        ("not_there.inside:build", "there is no module not_there"),
        ("dsclora_mean", "the entry `bad = dsclora_mean` names no function: module:function"),
    ],
)
def test_a_method_whose_entry_leads_nowhere_is_no_choice_and_says_why(
    install, distill, capsys, monkeypatch, function: str, problem: str
) -> None:
    install("dsclora-mean", MEAN, mean="dsclora_mean:build")
    install("dsclora-bad", "", bad=function)
    assert "mean" in method_names() and "bad" not in method_names()
    assert complete_method("bad") == []
    status, _, err = distill("--method", "wrong", "--out", "run")
    assert status == 2 and "augkd, none, mean; if another" in " ".join(err.replace("│", " ").split())
    status, _, err = distill("--method", "bad", "--out", "run")
    line = f"error: method bad of the package dsclora-bad: {problem} (repair or uninstall dsclora-bad)\n"
    assert (status, err) == (2, line)
    assert main(["doctor", "--offline", "--no-self-test"]) == 0
    assert f"bad   dsclora-bad 1.2: {problem}\n" in capsys.readouterr().out
    assert "dsclora_mean" not in sys.modules


@pytest.mark.slow
def test_the_example_package_is_built_installed_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = build("wheel:standard", tmp_path / "dist", source=EXAMPLE)
    python = new_environment(tmp_path / "venv", wheel)
    site = next((tmp_path / "venv").rglob("site-packages"))
    (site / "zz_dsclora.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    prepare()
    distill = ("-m", "dsclora_cli", "distill", "--method", "attention", "--teacher", "teacher.safetensors")
    out = run(python, tmp_path, *distill, *QUICK, *HERE, "--out", "run", "--json", "-q")
    score, result = [json.loads(line) for line in out.splitlines()]
    assert set(score["terms"]) == {"rec", "ts", "attention"} and Path(result["file"]).exists()
    assert "|none|attention" in run(python, tmp_path, "-m", "dsclora_cli", "distill", "--help").replace("\n", "")
    without = try_run(new_environment(tmp_path / "bare", None), tmp_path, "-c", "import dsclora_attention")
    assert without.returncode == 1
