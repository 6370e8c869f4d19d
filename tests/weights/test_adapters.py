"""Adapter files: save and load are exact, a wrong base is refused, and broken files are refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from networks import small
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dsclora_cli.errors import OutputUnwritable, WeightsError
from dsclora_cli.models.lora import Adapters, merge_adapters, parse_ranks
from dsclora_cli.models.network import Network
from dsclora_cli.models.span import SPAN
from dsclora_cli.weights.adapters import LoadedAdapter, build_adapters, load_adapters, save_adapters
from dsclora_cli.weights.checkpoint import load_network, save_network

BASE, OTHER = "ab" * 32, "cd" * 32
HEADER = {"kind": "dsclora adapter", "base_sha256": BASE, "training": "{}"}


def perturbed(rules: str = "paper") -> Adapters:
    network = small()
    adapters = Adapters(network, parse_ranks(network, rules), seed=5)
    for parameter in adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return adapters


def applied(network: SPAN, base_sha256: str, file: LoadedAdapter, force: bool = False) -> Network:
    return merge_adapters(network, build_adapters(network, base_sha256, file, force))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "adapter.safetensors"
    save_adapters(perturbed(), path, BASE, '{"steps": 3}')
    return path


@pytest.mark.parametrize("rules", ["paper", "small", "block_1.c2_r*:3:0.7 conv_cat:1"])
def test_merging_after_save_and_load_equals_merging_at_once(rules: str, tmp_path: Path) -> None:
    path, adapters = tmp_path / "adapter.safetensors", perturbed(rules)
    save_adapters(adapters, path, BASE, '{"steps": 3}')
    loaded = load_adapters(path)
    assert (loaded.path, loaded.base_sha256, loaded.training) == (path, BASE, '{"steps": 3}')
    expected, merged = merge_adapters(small(), adapters), applied(small(), BASE, loaded)
    assert merged.config == expected.config
    assert all(torch.equal(tensor, merged.state_dict()[name]) for name, tensor in expected.state_dict().items())
    assert not torch.equal(merged.get_parameter("block_1.c2_r.eval_conv.weight"),
                           small().get_parameter("block_1.c2_r.eval_conv.weight"))  # fmt: skip


def test_equal_adapters_give_equal_bytes_with_base_and_training_in_the_metadata(file: Path, tmp_path: Path) -> None:
    digests = {hashlib.sha256(file.read_bytes()).hexdigest()}
    for i in range(3):
        save_adapters(perturbed(), tmp_path / str(i), BASE, '{"steps": 3}')
        digests.add(hashlib.sha256((tmp_path / str(i)).read_bytes()).hexdigest())
    assert len(digests) == 1
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {**HEADER, "training": '{"steps": 3}'}


def test_another_base_is_refused_unless_forced(file: Path) -> None:
    loaded = load_adapters(file)
    with pytest.raises(WeightsError) as caught:
        applied(small(), OTHER, loaded)
    assert str(caught.value) == (
        f"{file} is an adapter for weights with sha256 abababababab..., not cdcdcdcdcdcd... "
        "(give the weights that the adapter was trained on)"
    )
    forced = applied(small(seed=9), OTHER, loaded, force=True)
    expected = merge_adapters(small(seed=9), perturbed())
    assert torch.equal(forced.conv_2.eval_conv.weight, expected.conv_2.eval_conv.weight)


@pytest.mark.parametrize("changes", [{"channels": 5}, {"blocks": 1}, {"scale": 3}])
def test_a_network_of_another_shape_is_refused_even_with_force(changes: dict[str, int], file: Path) -> None:
    with pytest.raises(WeightsError, match="does not fit this network: unexpected") as caught:
        applied(small(**changes), OTHER, load_adapters(file), force=True)
    assert "\n" not in str(caught.value)


def test_networks_and_adapters_are_not_mixed_up(file: Path, tmp_path: Path) -> None:
    save_network(small(), tmp_path / "net.safetensors", "")
    with pytest.raises(WeightsError, match="is not an adapter") as caught:
        load_adapters(tmp_path / "net.safetensors")
    assert "dsclora distill" in caught.value.hint
    with pytest.raises(WeightsError, match="is an adapter, and no network"):
        load_network(file)


def test_missing_files_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot read"):
        load_adapters(tmp_path / "absent.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(WeightsError, match="is not a file of weights"):
        load_adapters(tmp_path / "text")


@pytest.mark.parametrize("header", [{"kind": "other"}, {"base_sha256": "ab"}, {"base_sha256": "XY" * 32}])
def test_incomplete_metadata_are_refused(header: dict[str, str], file: Path) -> None:
    save_file(load_file(file), file, {**HEADER, **header})
    with pytest.raises(WeightsError, match="is not an adapter"):
        load_adapters(file)


LAYER = "block_1.c1_r.eval_conv"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{LAYER}.A": torch.full((12, 12), torch.nan)}, f"{LAYER}.A holds NaN or infinity"),
        ({f"{LAYER}.B": torch.zeros(12, 12, dtype=torch.int32)}, f"{LAYER}.B does not hold floating-point values"),
        ({f"{LAYER}.B": None}, f"the file lacks {LAYER}.B"),
        ({f"{LAYER}.alpha": None}, f"the file lacks {LAYER}.alpha"),
        ({f"{LAYER}.A": None}, f"unexpected {LAYER}."),
        ({f"{LAYER}.A": torch.zeros(3, 12)}, f"unexpected {LAYER}.B of shape (12, 12)"),
        ({f"{LAYER}.A": torch.zeros(144)}, f"unexpected {LAYER}.A of shape (144,)"),
        ({f"{LAYER}.A": torch.zeros(())}, f"unexpected {LAYER}."),
        ({f"{LAYER}.A": torch.zeros(0, 12)}, f"unexpected {LAYER}."),
        ({f"{LAYER}.alpha": torch.zeros(2)}, f"unexpected {LAYER}.alpha of shape (2,)"),
        ({"block_9.c1_r.eval_conv.A": torch.zeros(3, 12)}, "unexpected block_9.c1_r.eval_conv.A of shape (3, 12)"),
        ({"conv_1.A": torch.zeros(3, 9)}, "unexpected conv_1.A of shape (3, 9)"),
        ({"x" * 1000: torch.zeros(1)}, f"unexpected {'x' * 80} of shape (1,)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(changes: dict[str, Tensor | None], message: str, file: Path) -> None:
    state = {name: tensor for name, tensor in {**load_file(file), **changes}.items() if tensor is not None}
    save_file(state, file, HEADER)
    with pytest.raises(WeightsError) as caught:
        applied(small(), BASE, load_adapters(file))
    assert message in str(caught.value)
    assert file.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_saving_into_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable, match="cannot be written"):
        save_adapters(perturbed(), tmp_path / "absent" / "adapter.safetensors", BASE, "")


def test_half_precision_files_load(file: Path) -> None:
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file, HEADER)
    loaded = load_adapters(file)
    assert isinstance(loaded, LoadedAdapter)
    merged = applied(small(), BASE, loaded).conv_2.eval_conv.weight
    assert merged.dtype == torch.float32
    torch.testing.assert_close(merged, merge_adapters(small(), perturbed()).conv_2.eval_conv.weight, rtol=0, atol=1e-3)
