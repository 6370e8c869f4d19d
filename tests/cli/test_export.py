"""`dsclora export`: other programs compute the same from the files, and refused exports write nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import other_programs
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from small_networks import NETWORKS, made

from dsclora_cli.exporting import export as export_task
from dsclora_cli.models.lora import Adapters, merge_adapters, parse_ranks
from dsclora_cli.models.network import Network
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.adapters import save_adapters
from dsclora_cli.weights.checkpoint import load_network, save_network
from dsclora_cli.weights.state_dict import read_tensors

LEVEL = 1 / 255
PAGE = (Path(__file__).parents[2] / "docs" / "interop.md").read_text(encoding="utf-8")
READERS = {
    "onnx": (".onnx", other_programs.run_onnx),
    "openvino": (".xml", other_programs.run_openvino),
    "ncnn": (".param", other_programs.run_ncnn),
}
PACKAGES = {"onnx": "onnx", "openvino": "openvino", "ncnn": "pnnx"}


def picture(height: int = 21, width: int = 34) -> np.ndarray:
    """Return a smooth picture with some noise: `(H, W, 3)`, float32, in [0, 1]."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    waves = [0.5 + 0.4 * np.sin(rows / 5 + phase) * np.cos(columns / 7) for phase in (0, 1, 2)]
    noise = np.random.default_rng(0).normal(0, 0.02, (height, width, 3))
    return np.clip(np.dstack(waves) + noise, 0, 1).astype(np.float32)


def upscaled(network: Network, lr: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(lr).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with the weights `small.safetensors`: a SPAN of six blocks, as spandrel needs it."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_network(SPAN(SpanConfig(channels=6, blocks=6, scale=2)), Path("small.safetensors"), "from a test")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("format", READERS)
def test_another_program_computes_the_same_for_every_size(dsclora, folder: Path, format: str) -> None:
    suffix, run = READERS[format]
    pytest.importorskip(PACKAGES[format], reason=f"{PACKAGES[format]} is not installed")
    code, out, err = dsclora("export", "small.safetensors", "-o", f"there{suffix}")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith(f"there{suffix}")
    network = load_network(Path("small.safetensors"))
    for lr in (picture(), picture(40, 9)):
        assert np.abs(run(Path(f"there{suffix}"), lr) - upscaled(network, lr)).max() < LEVEL


@pytest.mark.slow
@pytest.mark.parametrize("format", READERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_architecture_can_be_exported(dsclora, folder: Path, format: str, name: str) -> None:
    suffix, run = READERS[format]
    pytest.importorskip(PACKAGES[format], reason=f"{PACKAGES[format]} is not installed")
    save_network(made(name), Path("some.safetensors"), "")
    assert dsclora("export", "some.safetensors", "-o", f"there{suffix}").code == 0
    network, lr = load_network(Path("some.safetensors")), picture()
    assert np.abs(run(Path(f"there{suffix}"), lr) - upscaled(network, lr)).max() < LEVEL


@pytest.mark.slow
@pytest.mark.parametrize("norm", [True, False])
def test_spandrel_reads_exactly_the_same_weights(dsclora, folder: Path, norm: bool) -> None:
    torch.manual_seed(1)
    save_network(SPAN(SpanConfig(channels=6, blocks=6, scale=3, norm=norm)), Path("own.safetensors"), "")
    assert dsclora("export", "own.safetensors", "--format", "spandrel", "-o", "there.safetensors").code == 0
    network = load_network(Path("own.safetensors"))
    # This program reads the same bits again.
    again = load_network(Path("there.safetensors")).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in network.state_dict().items())
    loaded = other_programs.import_spandrel().ModelLoader().load_from_file("there.safetensors")
    assert (loaded.architecture.id, loaded.scale) == ("SPAN", 3)
    loaded.eval()
    lr = torch.rand(1, 3, 9, 11)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model(lr), network(lr))
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compact", "rcan"])
def test_spandrel_reads_other_architectures(dsclora, folder: Path, name: str) -> None:
    save_network(made(name), Path("own.safetensors"), "")
    assert dsclora("export", "own.safetensors", "--format", "spandrel", "-o", "there.safetensors").code == 0
    lr = picture()
    expected = np.clip(upscaled(load_network(Path("own.safetensors")), lr), 0, 1)
    assert np.abs(other_programs.run_spandrel(Path("there.safetensors"), lr) - expected).max() < LEVEL


@pytest.mark.slow
def test_spandrel_reads_the_embedded_weights(dsclora, folder: Path) -> None:
    assert dsclora("export", "dsclora-x4", "--format", "spandrel", "-o", "there.safetensors").code == 0
    lr = picture(40, 50)
    assert dsclora("export", "dsclora-x4", "-o", "ours.safetensors").code == 0
    expected = np.clip(upscaled(load_network(Path("ours.safetensors")), lr), 0, 1)
    assert np.abs(other_programs.run_spandrel(Path("there.safetensors"), lr) - expected).max() < LEVEL / 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "title", ["onnxruntime", "OpenVINO", "ncnn", "chaiNNer, ComfyUI and other programs with spandrel"]
)
def test_the_examples_of_the_docs_run(dsclora, folder: Path, title: str) -> None:
    format, suffix, package = {
        "onnxruntime": ("onnx", ".onnx", "onnx"),
        "OpenVINO": ("openvino", ".xml", "openvino"),
        "ncnn": ("ncnn", "-ncnn.param", "pnnx"),
    }.get(title, ("spandrel", "-spandrel.safetensors", "spandrel"))
    pytest.importorskip(package, reason=f"{package} is not installed") if format != "spandrel" else None
    other_programs.prepare(format)
    lr = (picture(24, 30) * 255).round().astype(np.uint8)
    Image.fromarray(lr).save("photo.png")
    assert dsclora("export", "dsclora-x4", "-o", f"dsclora-x4{suffix}", "--format", format).code == 0
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    example = section.partition("```python\n")[2].partition("```")[0]
    exec(compile(example, "docs/interop.md", "exec"), {})
    assert dsclora("upscale", "photo.png", "-m", "dsclora-x4", "-o", "ours.png", "--engine", "torch").code == 0
    ours = np.asarray(Image.open("ours.png")).astype(int)
    assert np.abs(np.asarray(Image.open(f"large-{format}.png")).astype(int) - ours).max() <= 1


def test_safetensors_are_read_again_with_their_metadata(dsclora, folder: Path) -> None:
    code, out, _ = dsclora("export", "small.safetensors", "-o", "copy.safetensors", "--json")
    assert code == 0
    exported = json.loads(out)
    sha256 = sha256_of(Path("small.safetensors"))
    metadata = exported.pop("metadata")
    assert exported == {
        "version": 1,
        "format": "safetensors",
        "files": ["copy.safetensors"],
        "size": Path("copy.safetensors").stat().st_size,
        "model": "small",
        "weights_sha256": sha256,
        "note": None,
    }
    wanted = {"arch": "span", "scale": "2", "halo": "21", "licence": "not stated", "weights_sha256": sha256}
    assert {key: metadata[key] for key in wanted} == wanted
    assert metadata["training"] == "from a test"
    with safe_open("copy.safetensors", "pt") as file:
        assert metadata.items() <= file.metadata().items()
    first, second = load_network(Path("small.safetensors")), load_network(Path("copy.safetensors"))
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())


def test_a_catalog_entry_states_licence_and_source(dsclora, folder: Path) -> None:
    code, out, _ = dsclora("export", "dsclora-x4", "-o", "x4.safetensors")
    assert code == 0
    assert "x4, halo 21 pixels" in out
    assert "licence MIT" in out
    with safe_open("x4.safetensors", "pt") as file:
        assert file.metadata()["source"].startswith("Trained by this project")


@pytest.mark.slow
def test_equal_networks_give_equal_files(dsclora, folder: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    for name in ("one.onnx", "two.onnx"):
        assert dsclora("export", "small.safetensors", "-o", name).code == 0
    assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()


@pytest.mark.slow
def test_onnx_holds_the_metadata(dsclora, folder: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    assert dsclora("export", "small.safetensors", "-o", "small.onnx").code == 0
    model = onnx.load("small.onnx")
    metadata = {each.key: each.value for each in model.metadata_props}
    assert (metadata["scale"], metadata["halo"]) == ("2", "21")
    assert metadata["weights_sha256"] == sha256_of(Path("small.safetensors"))
    (end,) = model.graph.input
    assert [each.dim_param or each.dim_value for each in end.type.tensor_type.shape.dim] == [1, 3, "height", "width"]


@pytest.mark.slow
def test_openvino_and_ncnn_hold_the_metadata(dsclora, folder: Path) -> None:
    for package in ("openvino", "pnnx"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    assert dsclora("export", "small.safetensors", "-o", "a.xml").code == 0
    assert dsclora("export", "small.safetensors", "-o", "b.param").code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        *("a.bin", "a.xml", "b.bin", "b.json", "b.param", "small.safetensors")
    ]
    stored = ET.parse("a.xml").find("rt_info/dsclora")
    assert stored is not None
    assert {each.tag: each.get("value") for each in stored}["halo"] == "21"
    described = json.loads(Path("b.json").read_text("utf-8"))
    assert (described["halo"], described["input_blob"], described["output_blob"]) == ("21", "data", "output")


def test_an_adapter_is_merged_in(dsclora, folder: Path) -> None:
    network = load_network(Path("small.safetensors"))
    adapters = Adapters(network, parse_ranks(network, "small"))
    for parameter in adapters.parameters():
        torch.nn.init.constant_(parameter, 0.03)
    save_adapters(adapters, Path("adapter.safetensors"), sha256_of(Path("small.safetensors")), '{"steps": 3}')
    ran = dsclora("export", "small.safetensors", "--adapter", "adapter.safetensors", "-o", "both.safetensors")
    assert (ran.code, ran.err) == (0, "")
    exported, expected = load_network(Path("both.safetensors")), merge_adapters(network, adapters)
    assert all(torch.equal(tensor, exported.state_dict()[name]) for name, tensor in expected.state_dict().items())
    assert read_tensors(Path("both.safetensors")).metadata["training"] == '{"steps": 3}'


def test_another_model_than_the_first_choice_of_auto_is_a_note(dsclora, folder: Path) -> None:
    ran = dsclora("export", "auto", "-o", "auto.safetensors", "--offline")
    assert (ran.code, ran.err) == (0, "note: dscf-x4 could not be fetched (offline): using the embedded dsclora-x4\n")


def test_quiet_writes_the_file_and_no_line(dsclora, folder: Path) -> None:
    assert dsclora("export", "small.safetensors", "-o", "copy.safetensors", "-q") == (0, "", "")
    assert Path("copy.safetensors").exists()


def test_an_existing_file_is_replaced_only_on_request(dsclora, folder: Path) -> None:
    Path("copy.safetensors").write_text("precious")
    ran = dsclora("export", "small.safetensors", "-o", "copy.safetensors")
    assert ran == (2, "", "error: copy.safetensors exists (choose another name, or give --overwrite)\n")
    assert Path("copy.safetensors").read_text() == "precious"
    assert dsclora("export", "small.safetensors", "-o", "copy.safetensors", "--overwrite").code == 0
    load_network(Path("copy.safetensors"))


def test_a_full_disk_is_no_fault_of_the_weights(dsclora, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fail)
    ran = dsclora("export", "small.safetensors", "-o", "copy.safetensors", "--json")
    assert (ran.code, json.loads(ran.out)["error"]["code"]) == (1, "output-unwritable")
    message = "copy.safetensors cannot be written (No space left on device) (free some space)"
    assert ran.err == f"error: {message}\n"
    assert [path.name for path in folder.iterdir()] == ["small.safetensors"]


@pytest.mark.parametrize(("first", "second"), [("x.xml", "x.param"), ("x.param", "x.xml")])
@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_the_second_file_of_another_format_is_never_replaced(
    dsclora, folder: Path, first: str, second: str, more: tuple[str, ...]
) -> None:
    Path(first).write_text("model")
    Path("x.bin").write_text("weights of the model")
    ran = dsclora("export", "small.safetensors", "-o", second, *more)
    assert ran == (2, "", f"error: x.bin belongs to {first} (choose another name)\n")
    assert Path("x.bin").read_text() == "weights of the model"
    assert not Path(second).exists()


def test_the_examples_of_the_docs_write_different_files() -> None:
    written = [
        path.with_suffix(suffix)
        for path in map(Path, re.findall(r"^\$ dsclora export .*?-o (\S+)", PAGE, re.MULTILINE))
        for known in export_task.FORMATS.values()
        if known.suffixes[0] == path.suffix
        for suffix in known.suffixes[1:]
    ]
    assert len(written) == len(set(written)) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("small.safetensors", "-o", "x.zip"), 2, "the suffix of x.zip names no format"),
        (("small.safetensors", "-o", "x.pth", "--format", "spandrel"), 2, "end with .safetensors, unlike x.pth"),
        (("nobody", "-o", "x.onnx"), 2, "no model is called 'nobody'"),
        (("absent.pth", "-o", "x.onnx"), 3, "cannot read absent.pth"),
        (("small.safetensors", "-o", "no/x.safetensors"), 1, "no/x.safetensors cannot be written"),
        (("short.safetensors", "-o", "x.safetensors", "--format", "spandrel"), 2, "spandrel knows SPAN with 6 blocks"),
        (("edsr.safetensors", "-o", "x.safetensors", "--format", "spandrel"), 2, "spandrel knows no edsr"),
    ],
)
def test_a_refused_export_writes_nothing(
    arguments: tuple[str, ...], code: int, message: str, dsclora, folder: Path
) -> None:
    save_network(SPAN(SpanConfig(channels=4, blocks=1, scale=2)), Path("short.safetensors"), "")
    save_network(made("edsr"), Path("edsr.safetensors"), "")
    before = sorted(path.name for path in folder.iterdir())
    ran = dsclora("export", *arguments)
    assert (ran.code, ran.err.count("\n")) == (code, 1)
    assert message in ran.err
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize(("suffix", "package"), [(".onnx", "onnx"), (".param", "pnnx"), (".xml", "openvino")])
def test_a_missing_package_is_named_with_its_extra(
    dsclora, folder: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, package: str
) -> None:
    monkeypatch.setattr("dsclora_cli.exporting.file_formats.find_spec", lambda name: None)
    ran = dsclora("export", "small.safetensors", "-o", f"x{suffix}")
    extra = "cpu" if package == "openvino" else "export"
    assert ran == (2, "", f'error: the package {package} is not installed (pip install "dsclora[{extra}]")\n')


def test_a_package_that_cannot_be_imported_is_named_with_the_reason(dsclora, folder: Path, monkeypatch) -> None:
    def convert(*_: object) -> tuple[bytes, ...]:
        raise ModuleNotFoundError("No module named 'ml_dtypes'")

    broken = {**export_task.FORMATS, "onnx": replace(export_task.FORMATS["onnx"], convert=convert, package="torch")}
    monkeypatch.setattr(export_task, "FORMATS", broken)
    code, _, err = dsclora("export", "small.safetensors", "-o", "a.onnx")
    assert (
        code == 2 and "error: the package torch cannot be imported: No module named 'ml_dtypes' (install torch" in err
    )
    assert not Path("a.onnx").exists()
