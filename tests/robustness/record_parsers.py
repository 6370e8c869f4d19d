"""Parsers of records, caches, checkpoints, answers of the Hub, and names of places, to fuzz."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from parser_cases import Parser, as_file, scratch
from small_networks import made

from dsclora_cli import hub
from dsclora_cli.config import UpscaleOptions
from dsclora_cli.datasets.cache import TrainCache
from dsclora_cli.errors import DscloraError, UsageError, WeightsError
from dsclora_cli.evaluation.score_cache import PixelKey, ScoreKey, load_scores, save_scores
from dsclora_cli.hub_client import Answer, HubUnavailable
from dsclora_cli.inference.engine import Descriptor
from dsclora_cli.inference.openvino import Converted, load_converted, save_converted
from dsclora_cli.models.lora import Adapters, parse_ranks
from dsclora_cli.paths import cache_dir, state_dir
from dsclora_cli.publishing.own_model import open_own_model
from dsclora_cli.publishing.scores import read_scores
from dsclora_cli.recipe import Recipe
from dsclora_cli.storage.places import RemotePlace, is_url, parse_place
from dsclora_cli.training.checkpoint import RunState, TrainingProgress
from dsclora_cli.training.run_dir import RunDir
from dsclora_cli.upscaling.jobs import JobPlanner
from dsclora_cli.upscaling.manifest import ResultKey, is_recorded, read_record, result_state
from dsclora_cli.weights import hub_models
from dsclora_cli.weights.adapters import build_adapters, load_adapters, save_adapters
from dsclora_cli.weights.checkpoint import load_network, pack_network

_SHA256 = "ab" * 32


def _parse_stated_weights(header: bytes) -> None:
    """Open a weight file whose header is a text of any content, in front of the numbers of a small network."""
    path = as_file(struct.pack("<Q", len(header)) + header + _numbers(), "stated.safetensors")
    load_network(path)
    open_own_model(path)


@cache
def _whole_weights() -> bytes:
    return pack_network(made("span without norm"), {"training": json.dumps({"seed": 1, "recipe": _SHA256})})


def _numbers() -> bytes:
    return _whole_weights()[8 + struct.unpack("<Q", _whole_weights()[:8])[0] :]


def _headers() -> list[bytes]:
    """Return the header of a small network, whole and with other words of metadata."""
    header = json.loads(_whole_weights()[8 : -len(_numbers())])
    words = ({"training": "a sentence"}, {"arch": "span", "scale": "2"}, {"training": '{"step": 1e999}', "norm": "no"})
    said = header.get("__metadata__", {})
    return [json.dumps({**header, "__metadata__": {**said, **more}}).encode() for more in ({}, *words)]


def _parse_adapter(data: bytes) -> None:
    loaded = load_adapters(as_file(data, "adapter.safetensors"))
    build_adapters(made("span without norm"), loaded.base_sha256, loaded)


def _adapters() -> list[bytes]:
    network = made("span without norm")
    path = scratch() / "seed.safetensors"
    files = []
    for ranks in ("*:2", "*:full"):
        save_adapters(Adapters(network, parse_ranks(network, ranks)), path, _SHA256, "{}")
        files.append(path.read_bytes())
    return files


def _parse_checkpoint(data: bytes) -> None:
    _run_state().load(as_file(data, "state.pt"), torch.device("cpu"))


def _run_state() -> RunState:
    network = torch.nn.Linear(2, 2)
    parts = {"network": network, "optimizer": torch.optim.Adam(network.parameters())}
    return RunState(Recipe(), "content", parts, TrainingProgress(terms={"l1": 1.0}))


@cache
def _checkpoints() -> list[bytes]:
    path = scratch() / "seed.pt"
    _run_state().save(path)
    state = torch.load(path, weights_only=True)
    old = io.BytesIO()
    torch.save(state, old, _use_new_zipfile_serialization=False)
    without = io.BytesIO()
    torch.save({**state, "progress": {"step": "x", "unknown": 1}, "optimizer": {}}, without)
    return [path.read_bytes(), old.getvalue(), without.getvalue()]


def _parse_log(data: bytes) -> None:
    as_file(data, "log.jsonl")
    RunDir(scratch()).lines()


def _parse_result_record(data: bytes) -> None:
    output = as_file(b"result", "result.png")
    _write(next((state_dir() / "results").rglob("*.json")) if read_record(output) else _place_of_record(), data)
    is_recorded(output)
    result_state(output, ResultKey(_SHA256, _SHA256, {"scale": 2}))
    JobPlanner.for_arrays(UpscaleOptions())


def _place_of_record() -> Path:
    name = hashlib.sha256(str(scratch() / "result.png").encode()).hexdigest() + ".json"
    return state_dir() / "results" / name[:2] / name[2:]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


_REFERENCE = "hf://someone/networks/net.pth"


def _parse_trust(data: bytes) -> None:
    name = f"{hashlib.sha256(_REFERENCE.encode()).hexdigest()[:32]}.json"
    _write(state_dir() / "hub-models" / name, data)
    _write(state_dir() / "hub-models" / "another.json", _trust(reference="hf://a/b/c.pth"))
    hub_models.list_trusted()
    hub_models.renew_trust("someone/networks", "net.pth", 9, "cd" * 32)
    _write(state_dir() / "hub-models" / name, data)
    hub_models.find_trusted(_REFERENCE)
    hub_models.obtain_hub_model(_REFERENCE, offline=True)


def _trust(**more: object) -> bytes:
    known = hub_models.TrustedFile(_REFERENCE, "someone/networks", "net.pth", None, 7, _SHA256, "mit")
    return json.dumps({**asdict(known), **more}).encode()


def _parse_reference(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    hub_models.is_repo_name(text)
    if hub_models.is_hub_reference(text):
        hub_models.obtain_hub_model(text, offline=True)


def _parse_place(data: bytes) -> None:
    """Take a place apart, and check the laws of names: what comes of a place is a place again."""
    text = data.decode(errors="surrogateescape")
    if "\0" in text:  # no argument of a command holds one
        return
    place = parse_place(text)
    assert is_url(text) or isinstance(place, Path)
    if not isinstance(place, RemotePlace):
        return
    below = place / "a b/c?.png"
    assert parse_place(place.url) == place and parse_place(below.url) == below
    assert below.name == "c?.png" and below.parent == place / "a b", (below, below.parent)
    assert (place.key, place.stem, place.suffix, place.scheme, place.is_writable, str(place.parent)) is not None
    assert place.with_name("x.png").name == "x.png"
    assert PurePosixPath(place.name).name in {place.name, "", "."} or place.name == ".."


def _score_key() -> ScoreKey:
    return ScoreKey(PixelKey("a", 2, _SHA256, "torch", "cpu", "float32", False, None), "b", 2, ("psnr_y",))


def _parse_scores(data: bytes) -> None:
    place = state_dir() / "eval"
    if not any(place.glob("*.json")):
        save_scores(_score_key(), {"psnr_y": 31.0})
    _write(next(place.glob("*.json")), data)
    load_scores(_score_key())


def _kept_scores() -> list[bytes]:
    save_scores(_score_key(), {"psnr_y": 31.0})
    return [next((state_dir() / "eval").glob("*.json")).read_bytes()]


def _reports() -> list[bytes]:
    rows = [
        {"name": name, "weights_sha256": sha, "mean": {"psnr_y": 31.5}}
        for name, sha in (("x", _SHA256), ("bicubic", None))
    ]
    report = {
        "rows": rows,
        "metrics": ["psnr_y"],
        "protocol": {"name": "paper", "border": 2},
        "jpeg": 60,
        "sets": [{"name": "Set5", "images": 5, "rows": rows}],
    }
    return [json.dumps(report).encode()]


def _parse_index(data: bytes) -> None:
    _write(cache_dir() / "training" / "index.jsonl", data)
    TrainCache().hash_of(as_file(b"picture", "a.png"))


def _indices() -> list[bytes]:
    place = as_file(b"picture", "a.png")
    stamp = [place.stat().st_size, place.stat().st_mtime_ns]
    return ["\n".join(json.dumps(each) for each in ([str(place), *stamp, _SHA256], ["b", 1, 2, "c"])).encode()]


def _parse_pages(data: bytes) -> None:
    """Read the facts on the pages of a picture file, from the cache where the record is whole."""
    cache_of_pages = TrainCache()
    picture = as_file(_bitmap(), "p.bmp")
    stored = cache_of_pages.add_file(picture)
    _write(cache_of_pages.folder / f"{stored.pages[0].partition('.')[0]}.json", data)
    assert cache_of_pages.add_file(picture).pages


@cache
def _bitmap() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 90, 10)).save(buffer, "BMP")
    return buffer.getvalue()


def _parse_array(data: bytes) -> None:
    _write(cache_dir() / "training" / "ab.hr.npy", data)
    np.asarray(TrainCache().open("ab.hr.npy")).sum()


def _arrays() -> list[bytes]:
    files = []
    for dtype in (np.uint8, np.float32):
        buffer = io.BytesIO()
        np.save(buffer, np.zeros((4, 5, 3), dtype))
        files.append(buffer.getvalue())
    return files


def _converted() -> list[bytes]:
    path = scratch() / "kept.zip"
    save_converted(Converted(b"<net/>", bytes(64), Descriptor("span", 2, 8, 10)), path)
    return [path.read_bytes()]


def _parse_listing(data: bytes) -> None:
    """Read the Hub's description of a repository, and look for a file in the description."""
    with _answering(data):
        hub.describe_repo("someone/networks")
        wanted = hub.HubFile("someone/networks", "net.pth", 7, _SHA256)
        download = hub._Download(wanted)
        download.with_client(download.search)


@contextmanager
def _answering(data: bytes) -> Iterator[None]:
    """Let the Hub answer every GET request with these bytes, without a socket."""

    @contextmanager
    def stream(*_: object) -> Iterator[Answer]:
        yield Answer(200, {}, [data])

    kept, hub.stream = hub.stream, stream
    try:
        yield
    finally:
        hub.stream = kept


def _listings() -> list[bytes]:
    files = [
        {"rfilename": "net.pth", "size": 7, "blobId": "b" * 40, "lfs": {"sha256": _SHA256, "size": 7}},
        {"rfilename": "README.md", "size": 3, "blobId": "c" * 40},
    ]
    listing = {"sha": "d" * 40, "private": False, "siblings": files, "cardData": {"license": "mit"}}
    return [json.dumps(listing).encode()]


def _texts(*texts: str) -> Callable[[], list[bytes]]:
    return lambda: [text.encode() for text in texts]


_URLS = (
    "s3://bucket/a/b.png?versionId=3",
    "https://user:pw@host/x%20y/?sig=a&b=c",
    "zip://a/b.png::s3://bucket/c.zip",
    "memory://a.png",
    "file://localhost/a%20b",
    "C:\\x.png",
)

RECORD_PARSERS: dict[str, Parser] = {
    "metadata of weights": Parser(_parse_stated_weights, _headers, (WeightsError, UsageError), is_text=True),
    "adapters": Parser(_parse_adapter, _adapters, (WeightsError,)),
    "checkpoints of runs": Parser(_parse_checkpoint, _checkpoints, (UsageError,)),
    "logs of runs": Parser(
        _parse_log, _texts('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": null}\n'), (UsageError,), is_text=True
    ),
    "records of results": Parser(
        _parse_result_record,
        _texts(json.dumps({"version": 1, "bytes": 6, "sha256": _SHA256, "recipe": {"input_sha256": _SHA256}})),
        is_text=True,
    ),
    "records of trusted files": Parser(_parse_trust, lambda: [_trust()], (WeightsError,), is_text=True),
    "references to the Hub": Parser(
        _parse_reference, _texts("hf://a/b/c.pth@main", "a/b", "hf://a/b"), (UsageError, WeightsError), is_text=True
    ),
    "answers of the Hub": Parser(_parse_listing, _listings, (HubUnavailable,), is_text=True),
    "names of places": Parser(_parse_place, _texts(*_URLS), is_text=True),
    "kept scores": Parser(_parse_scores, _kept_scores, is_text=True),
    "reports of scores": Parser(
        lambda data: read_scores(as_file(data, "scores.json"), (_SHA256,)), _reports, (UsageError,), is_text=True
    ),
    "index of training pictures": Parser(_parse_index, _indices, is_text=True),
    "pages of training pictures": Parser(_parse_pages, _texts('{"pages": 1, "conversions": ["alpha"]}'), is_text=True),
    "arrays of training pictures": Parser(_parse_array, _arrays, (DscloraError,)),
    "converted networks": Parser(lambda data: load_converted(as_file(data, "kept.zip")), _converted),
}
"""Parsers by name."""
