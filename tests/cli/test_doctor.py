"""`dsclora doctor`: the report, the self-test and its failures."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hub_server import HubServer

from dsclora_cli.cli.views.doctor_report import _without_home
from dsclora_cli.diagnosis import facts, self_test
from dsclora_cli.weights import verification
from dsclora_cli.weights.catalog import load_catalog

ROOT = Path(__file__).parents[2]


@pytest.fixture
def report(dsclora):
    """Run the command with `--json`; return the exit code and the report."""

    def run(*arguments: str) -> tuple[int, dict]:
        code, out, _ = dsclora("doctor", "--json", *arguments)
        return code, json.loads(out)

    return run


@pytest.fixture
def few_formats(monkeypatch):
    """The formats are checked in one test only: encoders take time."""
    monkeypatch.setattr(facts, "list_formats", lambda: ())


def checks_of(report: dict) -> dict[str, dict]:
    return {check["name"]: check for check in report["checks"]}


def test_everything_works_here(report) -> None:
    code, found = report("--offline")
    failed = {name: check["detail"] for name, check in checks_of(found).items() if check["outcome"] == "FAIL"}
    assert (code, failed, found["failed"]) == (0, {}, 0)
    names = set(checks_of(found))
    assert {"golden picture", "tiles equal the whole picture", "torch on cpu equals PyTorch"} <= names
    assert {f"{format['name']} keeps a picture" for format in found["formats"]} <= names
    assert checks_of(found)["PNG keeps a picture"]["detail"].startswith("4 channels of 16 bits, ")
    # The engine that is absent in tests is named with the next step, and the check of the engine is no failure.
    assert checks_of(found)["openvino on cpu equals PyTorch"]["outcome"] == "SKIP"
    assert found["auto"]["engine"] and found["auto"]["device"] == "cpu" and not found["auto"]["problem"]


def test_the_native_engine_is_tested_with_its_instruction_set(report, few_formats, native) -> None:
    code, found = report("--offline")
    check = checks_of(found)["native on cpu equals PyTorch"]
    failed = {name: each["detail"] for name, each in checks_of(found).items() if each["outcome"] == "FAIL"}
    assert (code, failed) == (0, {})
    assert check["outcome"] == "PASS" and "native on cpu with " in check["detail"]


def test_the_text_has_a_section_for_everything(dsclora, few_formats) -> None:
    code, out, err = dsclora("doctor", "--offline", "--no-self-test")
    assert (code, err) == (0, "")
    headings = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert headings[:5] == ["Versions", "Devices", "Engines", "Folders", "Hugging Face Hub"]
    assert headings[5:] == ["Formats", "Methods of other packages", "Environment", "Settings"]
    assert "  auto takes" in out and "  torch " in out and "not asked: the program is offline" in out


NO_TORCH = """
import sys
from dsclora_cli.cli.app import main
code = main(["doctor", "--no-self-test", "--offline", "--quiet"])
print(code, "torch" in sys.modules)
"""


@pytest.mark.slow
def test_without_a_self_test_torch_is_not_imported_where_another_engine_runs(openvino) -> None:
    def run() -> str:
        return subprocess.run([sys.executable, "-c", NO_TORCH], check=True, capture_output=True, text=True).stdout

    run()  # the first run may convert the network, which needs torch
    assert run() == "0 False\n"


def test_a_damaged_weight_file_fails_with_the_next_step(dsclora, few_formats, monkeypatch) -> None:
    monkeypatch.setattr(verification, "sha256_of", lambda path: "0" * 64)
    code, out, _ = dsclora("doctor", "--offline")
    (line,) = (line for line in out.splitlines() if line.startswith("FAIL"))
    assert code == 1 and line.startswith("FAIL  weight files are intact: dsclora-x4 is damaged: ")
    assert "(install dsclora again)" in line and "1 failed" in out.splitlines()[-1]
    # Quiet output is the failures only.
    code, out, err = dsclora("doctor", "--offline", "-q")
    assert code == 1 and out.splitlines() == [line[: line.rindex("[")] + out[out.rindex("[") :].rstrip()] and err == ""


class _Off:
    """An engine whose pictures are a little too dark."""

    name, device, dtype, fp16_fallbacks = "native", "cpu", "float32", 0

    def __init__(self, engine) -> None:
        self.engine, self.descriptor = engine, engine.descriptor

    def __call__(self, tile):
        return self.engine(tile) * 0.98


def test_an_engine_that_computes_something_else_fails(report, few_formats, monkeypatch) -> None:
    load = self_test.load_engine
    monkeypatch.setattr("dsclora_cli.diagnosis.doctor.find_problems", lambda: {"native": "", "torch": ""})
    monkeypatch.setattr(self_test, "choose_device", lambda options: "cpu")

    def load_wrong(weights, device, options):
        engine = load(weights, device, replace(options, engine="torch"))
        return _Off(engine) if options.engine == "native" else engine

    monkeypatch.setattr(self_test, "load_engine", load_wrong)
    code, found = report("--offline")
    checks = checks_of(found)
    assert code == 1 and found["failed"] == 1
    assert checks["native on cpu equals PyTorch"]["outcome"] == "FAIL"
    assert "largest difference" in checks["native on cpu equals PyTorch"]["detail"]
    assert checks["native on cpu equals PyTorch"]["hint"].startswith("choose another --engine")
    assert checks["torch on cpu equals PyTorch"]["outcome"] == "PASS"


class _Half:
    """An engine of a GPU in float16, with a given error."""

    name, device, dtype, fp16_fallbacks = "torch", "cuda:0", "float16", 3

    def __init__(self, engine, error: float) -> None:
        self.engine, self.error, self.descriptor = engine, error, engine.descriptor

    def __call__(self, tile):
        return self.engine(tile) + self.error


@pytest.mark.slow
@pytest.mark.parametrize(("error", "outcome"), [(0.001, "PASS"), (0.5, "FAIL")])
def test_float16_of_a_gpu_must_come_close_to_float32(report, few_formats, monkeypatch, error, outcome) -> None:
    gpu = facts.Device("cuda:0", "GPU of a test", 80_000_000_000, 70_000_000_000)
    devices, load = facts.list_all_devices(), self_test.load_engine
    monkeypatch.setattr(facts, "list_all_devices", lambda: (*devices, gpu))
    monkeypatch.setattr("dsclora_cli.diagnosis.doctor.find_problems", lambda: {"torch": ""})
    monkeypatch.setattr(self_test, "choose_device", lambda options: options.device.replace("auto", "cpu"))

    def load_on_gpu(weights, device, options):
        engine = load(weights, "cpu", replace(options, device="cpu", engine="torch"))
        return _Half(engine, error) if (device, options.dtype) == ("cuda:0", "auto") else engine

    monkeypatch.setattr(self_test, "load_engine", load_on_gpu)
    code, found = report("--offline")
    check = checks_of(found)["torch on cuda:0 equals PyTorch"]
    assert (check["outcome"], code) == (outcome, outcome == "FAIL")
    assert "float16: " in check["detail"] and "3 tiles in float32" in check["detail"]
    assert check["hint"] == ("" if outcome == "PASS" else "add --dtype float32")
    assert found["auto"]["reason"].startswith("PyTorch can use cuda:0")


def test_tiles_that_see_too_little_fail(report, few_formats, monkeypatch) -> None:
    load = self_test.load_engine

    def load_near_sighted(weights, device, options):
        engine = load(weights, device, options)
        engine.descriptor = replace(engine.descriptor, halo=2)
        return engine

    monkeypatch.setattr(self_test, "load_engine", load_near_sighted)
    code, found = report("--offline")
    assert code == 1 and checks_of(found)["tiles equal the whole picture"]["outcome"] == "FAIL"
    assert checks_of(found)["golden picture"]["outcome"] == "PASS"  # a whole picture needs no halo


def test_a_broken_library_fails_its_own_check_only(report, monkeypatch) -> None:
    formats = [format for format in facts.list_formats() if format.name in {"PNG", "TGA"}]
    monkeypatch.setattr(facts, "list_formats", lambda: formats)
    write = self_test.write_picture

    def write_or_break(target, header, frames, options):
        if header.format == "PNG":
            raise ImportError("libpng.so.16: cannot open shared object file\nmore")
        write(target, header, frames, options)

    monkeypatch.setattr(self_test, "write_picture", write_or_break)
    code, found = report("--offline")
    png = checks_of(found)["PNG keeps a picture"]
    assert code == 1 and found["failed"] == 1
    assert png["detail"] == "ImportError: libpng.so.16: cannot open shared object file"
    assert png["hint"] == "report what `dsclora doctor` shows"


def test_a_broken_own_catalog_is_a_failed_check_and_no_end(report, few_formats, private_folders) -> None:
    (private_folders / "config").mkdir()
    (private_folders / "config" / "weights.toml").write_text("[weights")
    code, found = report()
    assert code == 1 and "weights.toml" in found["auto"]["problem"]
    assert "weights.toml" in checks_of(found)["weight files are intact"]["detail"]
    assert found["hub"]["answers"] == "not-asked"


def test_broken_settings_are_a_failed_check_and_no_end(dsclora, report, few_formats, private_folders) -> None:
    (private_folders / "config").mkdir()
    (private_folders / "config" / "config.toml").write_text("quality = 90\n")
    code, found = report("--offline", "--no-self-test")
    assert code == 0 and found["system"]["settings"] == {"quality": "90"}
    assert found["system"]["settings_problem"] == ""
    (private_folders / "config" / "config.toml").write_text("quality 90\n")
    code, found = report("--offline", "--no-self-test")
    assert code == 0 and "config.toml, line 1: " in found["system"]["settings_problem"]
    out = dsclora("doctor", "--offline", "--no-self-test").out
    assert "cannot be read" in out.partition("Settings\n")[2] and "config.toml, line 1: " in out
    code, found = report("--offline")
    check = checks_of(found)["settings are valid"]
    assert code == 1 and "config.toml, line 1: " in check["detail"] and check["hint"].startswith("correct or remove")
    (private_folders / "config" / "config.toml").write_text("\nscale = 99\n")
    code, found = report("--offline")
    assert (code, found["system"]["settings"]) == (1, {"scale": "99"})
    assert "config.toml, line 2" in checks_of(found)["settings are valid"]["detail"]


def test_a_folder_that_cannot_be_written_fails(report, few_formats, monkeypatch, private_folders) -> None:
    unwritable = private_folders / "cache"
    writable = facts._is_writable
    unwritable.mkdir()
    monkeypatch.setattr(facts, "_is_writable", lambda folder: folder != unwritable and writable(folder))
    code, found = report("--offline")
    check = checks_of(found)["folders can be written"]
    assert code == 1 and check["detail"] == f"not writable: cache ({unwritable})"
    assert "set DSCLORA_CACHE_DIR" in check["hint"]
    assert {folder["purpose"] for folder in found["folders"] if not folder["writable"]} >= {"cache"}


def test_a_file_in_place_of_a_folder_fails(report, few_formats, private_folders) -> None:
    (private_folders / "state").write_text("a file")
    (private_folders / "cache").symlink_to(private_folders / "nowhere")
    _, found = report("--offline", "--no-self-test")
    writable = {folder["purpose"]: folder["writable"] for folder in found["folders"]}
    assert (writable["records of finished work"], writable["cache"], writable["configuration"]) == (False, False, True)


def test_looking_at_folders_leaves_nothing_behind(report, few_formats, private_folders) -> None:
    report("--offline", "--no-self-test")
    assert not (private_folders / "config").exists() and not (private_folders / "state").exists()


def test_the_hub_answers_or_does_not(report, few_formats, monkeypatch) -> None:
    entry = load_catalog().entry("dscf-x4")
    assert report("--no-self-test")[1]["hub"]["answers"] == "no"
    with HubServer(entry.repo, {entry.file: b"other bytes"}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        code, found = report("--no-self-test")
        assert code == 0 and found["hub"]["answers"] == "no" and found["hub"]["hint"]
        assert entry.sha256 in found["hub"]["problem"]  # the Hub no longer has the pinned bytes
        assert not [request for request in server.requests if request.startswith("GET") and "resolve" in request]


def test_the_hub_has_the_pinned_file(report, few_formats, monkeypatch) -> None:
    entry = replace(load_catalog().entry("dscf-x4"), sha256=hashlib.sha256(b"pinned").hexdigest(), size=6)
    monkeypatch.setattr(facts, "load_catalog", lambda: replace(load_catalog(), entries={entry.name: entry}))
    with HubServer(entry.repo, {entry.file: b"pinned"}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        hub = report("--no-self-test")[1]["hub"]
        assert hub["answers"] == "yes" and 0 < hub["seconds"] < 10
        assert [request.split()[0] for request in server.requests] == ["HEAD"]
        server.requests.clear()
        assert report("--no-self-test", "--offline")[1]["hub"]["answers"] == "not-asked"
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert report("--no-self-test")[1]["hub"]["answers"] == "not-asked"
        assert server.requests == []


def test_secrets_stay_out_of_the_report(dsclora, few_formats, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:secret@proxy:3128")
    monkeypatch.setenv("HF_ENDPOINT", "http://ann:secret@127.0.0.1:9")
    for arguments in (["--json"], []):
        out = dsclora("doctor", "--no-self-test", *arguments).out
        assert "secret" not in out and "HF_TOKEN" in out and "HTTPS_PROXY" in out and "//...@127.0.0.1:9" in out


@pytest.mark.parametrize("endpoint", ["http://ann:secr'et@127.0.0.1:9", "//ann:secr'et@127.0.0.1:9"])
def test_a_login_with_a_quote_or_without_a_scheme_stays_out_of_the_report(
    dsclora, few_formats, monkeypatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    for as_json in ([], ["--json"]):
        out = dsclora("doctor", "--offline", *as_json).out
        assert "et@" not in out and "//...@127.0.0.1:9" in out


def test_the_home_folder_is_shown_as_a_tilde(dsclora, few_formats, monkeypatch, private_folders) -> None:
    monkeypatch.setattr(Path, "home", lambda: private_folders)
    out = dsclora("doctor", "--no-self-test", "--offline").out
    assert "~/cache: no files of dsclora" in out and str(private_folders / "cache: ") not in out


def test_signatures_and_logins_stay_out_of_every_part_of_the_report(
    dsclora, few_formats, monkeypatch, private_folders
) -> None:
    signed = "https://ann:secret@host/net.safetensors?X-Amz-Signature=secret"
    monkeypatch.setenv("DSCLORA_MODEL", signed)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/?sig=secret")
    monkeypatch.setattr("dsclora_cli.diagnosis.doctor.find_problems", lambda: {"openvino": f"no {signed}", "torch": ""})
    (private_folders / "config").mkdir()
    (private_folders / "config" / "config.toml").write_text(f'model = "{signed}"\n')
    for arguments in (["--json"], []):
        out = dsclora("doctor", "--offline", "--no-self-test", *arguments).out
        assert "secret" not in out and out.count("https://...@host/net.safetensors?...") == 3
    assert "secret" not in dsclora("doctor", "--offline").out


def test_the_home_folder_is_a_tilde_in_every_part_of_the_report(
    dsclora, few_formats, monkeypatch, private_folders
) -> None:
    home = private_folders / "home" / "alice"
    (private_folders / "config").mkdir()
    (private_folders / "config" / "config.toml").write_text(f'model = "{home}/net.safetensors"\n')
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setenv("HF_HOME", str(home / "hub"))
    monkeypatch.setenv("DSCLORA_STATE_DIR", str(home))
    problem = f"cannot open '{home}/lib.so'"
    monkeypatch.setattr("dsclora_cli.diagnosis.doctor.find_problems", lambda: {"openvino": problem, "torch": ""})
    out = dsclora("doctor", "--offline").out
    assert "alice" not in out
    shown = [line.split(maxsplit=1)[1] for line in out.splitlines() if line.startswith("  ") and "~" in line]
    assert {"~/hub", "~", "~/net.safetensors", "cannot open '~/lib.so'"} <= set(shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/ann", "~"),
        ("/home/ann/x, /home/ann: no", "~/x, ~: no"),
        ("/home/anna/x", "/home/anna/x"),
        ("/home/ann.smith/x, /home/ann.", "/home/ann.smith/x, ~."),
        ("file:///home/ann/x", "file://~/x"),
    ],
)
def test_the_home_folder_alone_and_in_a_sentence_is_a_tilde(monkeypatch, text: str, shown: str) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ann"))
    assert _without_home(text) == shown


def test_packages_come_with_their_extras(report, few_formats) -> None:
    packages = {package["name"]: package for package in report("--offline", "--no-self-test")[1]["packages"]}
    if not packages:
        pytest.skip("dsclora is not installed in this environment")
    assert packages["torch"]["extra"] is None and packages["torch"]["version"]
    assert packages["pillow-heif"]["extra"] == "heif"


def test_a_missing_package_fails(report, few_formats, monkeypatch) -> None:
    packages = (facts.Package("numpy", "2.0"), facts.Package("isal", None), facts.Package("pyiqa", None, "metrics"))
    monkeypatch.setattr(facts, "list_packages", lambda: packages)
    code, found = report("--offline")
    check = checks_of(found)["packages are installed"]
    assert (code, check["detail"], check["hint"]) == (1, "missing: isal", "pip install isal")


def test_a_gpu_that_torch_cannot_use_is_named(report, few_formats, monkeypatch, tmp_path) -> None:
    driver = tmp_path / "nvidiactl"
    driver.touch()
    monkeypatch.setattr("dsclora_cli.diagnosis.doctor.find_driver", lambda: driver)
    reason = report("--offline", "--no-self-test")[1]["auto"]["reason"]
    assert f"{driver} shows a GPU, and the installed PyTorch cannot use it: install a CUDA build of torch" in reason


def test_the_golden_file_belongs_to_the_embedded_weights() -> None:
    with np.load(self_test._golden_file()) as golden:
        assert golden["sr"].shape == (*tuple(2 * side for side in golden["lr"].shape[:2]), 3)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"tests/golden/{self_test.TESTED_MODEL}.npz" = "dsclora_cli/diagnosis/golden.npz"' in project


def test_bug_reports_are_asked_for_the_report() -> None:
    template = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug_report.yml").read_text(encoding="utf-8")
    assert "Output of `dsclora doctor`" in template
