"""Errors, interrupts and memory between the stages of a batch."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import monotonic, sleep

import pytest
from batches import EMBEDDED, RepeatUpscaler, fill, leftovers, run, save_photo, states

from dsclora_cli import paths
from dsclora_cli.config import BatchOptions, SaveOptions, UpscaleOptions
from dsclora_cli.errors import ErrorCode, ErrorInfo, ImageError, OutOfMemory, WeightsError
from dsclora_cli.imaging.reader import PictureReader
from dsclora_cli.imaging.types import AnyFrame, Frame, StreamedFrame
from dsclora_cli.upscaling import batch as batch_module
from dsclora_cli.upscaling import inputs as inputs_module
from dsclora_cli.upscaling import picture as picture_module
from dsclora_cli.upscaling import pipeline as pipeline_module
from dsclora_cli.upscaling.batch import FileResult, UpscaleCallbacks, upscale_files
from dsclora_cli.upscaling.bounded_queue import ByteBudget
from dsclora_cli.upscaling.jobs import JobPlanner
from dsclora_cli.upscaling.types import InputFile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "in")


def test_a_picture_that_fails_in_the_network_fails_alone(folder: Path) -> None:
    calls: list[int] = []

    def fail_third(frame: Frame) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OutOfMemory("a tile of 512 does not fit", "--tile 256 would fit")

    results = run([folder / "d.gif", folder / "b.png"], upscaler=RepeatUpscaler(fail_third))
    assert states(results) == {"d.gif": "failed", "b.png": "done"}
    assert results[0].error == ErrorInfo(ErrorCode.OUT_OF_MEMORY, "a tile of 512 does not fit", "--tile 256 would fit")
    assert not (folder / "d_x4.gif").exists()
    assert leftovers(folder) == []


def test_causes_in_a_circle_fail_a_picture_alone(folder: Path) -> None:
    """As for a lost connection to a web server: the cause is raised again while the exception is handled."""

    def fail(frame: Frame) -> None:
        refused = ConnectionError("refused")
        try:
            raise FileNotFoundError("a.jpg") from refused
        except FileNotFoundError:
            raise refused from None

    results = run([folder / "a.jpg"], upscaler=RepeatUpscaler(fail))
    assert states(results) == {"a.jpg": "failed"}


def test_a_truncated_picture_leaves_no_file(folder: Path) -> None:
    data = (folder / "d.gif").read_bytes()
    (folder / "d.gif").write_bytes(data[: len(data) - 30])
    results = run([folder / "d.gif", folder / "b.png"], upscaler=RepeatUpscaler())
    assert states(results) == {"d.gif": "failed", "b.png": "done"}
    assert not (folder / "d_x4.gif").exists()
    assert leftovers(folder) == []


def test_a_picture_that_cannot_be_written_stops_the_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: each band goes to the writer before the next is made."""
    made: list[int] = []

    class Slow(RepeatUpscaler):
        def upscale(self, frame, plan, on_progress, on_warning) -> StreamedFrame:
            whole = super().upscale(frame, plan, on_progress, on_warning)

            def bands():
                for band in whole.bands():
                    for row in band:
                        made.append(1)
                        yield row[None]

            return StreamedFrame(whole.shape, bands(), whole.duration_ms)

    def full(target: object, header: object, frames: Iterable[AnyFrame], *_: object) -> None:
        next(next(iter(frames)).bands())
        raise ImageError("cannot be written (No space left on device)")

    monkeypatch.setattr(pipeline_module, "save_result", full)
    monkeypatch.setattr(pipeline_module, "pixel_budget", lambda limit: 1)
    results = run([folder / "a.jpg", folder / "b.png"], upscaler=Slow())
    assert states(results) == {"a.jpg": "failed", "b.png": "failed"}
    assert "No space left" in str(results[0].error)
    assert len(made) < 2 * 36


def test_seconds_of_work_are_not_negative_where_the_result_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(target: object, header: object, frames: Iterable[AnyFrame], *_: object) -> None:
        list(next(iter(frames)).bands())
        raise ImageError("cannot be written (No space left on device)")

    monkeypatch.setattr(pipeline_module, "save_result", full)
    [result] = run([folder / "b.png"], upscaler=RepeatUpscaler(lambda _: sleep(0.2)))
    assert result.status == "failed"
    assert result.seconds.network >= 0.2 and 0 <= result.seconds.encode < 0.2


@pytest.mark.parametrize("failing", ["network", "encode"])
def test_seconds_of_the_network_are_not_negative_where_a_picture_fails_after_a_slow_decoder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    frames = PictureReader.frames
    reported = threading.Event()

    def slow(reader: PictureReader) -> Iterator[AnyFrame]:
        for number, frame in enumerate(frames(reader)):
            if number == 1:
                sleep(0.2)
            yield frame

    def work(_: Frame) -> None:
        calls.append(1)
        if len(calls) == 2:
            if failing == "network":
                raise ImageError("not this one")
            reported.wait(10)

    def full(target: object, header: object, frames: Iterator[AnyFrame], *_: object) -> None:
        next(frames)
        while len(calls) < 2:
            sleep(0.01)
        raise ImageError("cannot be written (No space left on device)")

    calls: list[int] = []
    monkeypatch.setattr(PictureReader, "frames", slow)
    if failing == "encode":
        monkeypatch.setattr(pipeline_module, "save_result", full)
    results = upscale_files([folder / "d.gif"], EMBEDDED, upscaler=RepeatUpscaler(work))
    result = next(results)
    reported.set()
    assert result.status == "failed"
    assert min(result.seconds.decode, result.seconds.network, result.seconds.encode) >= 0
    assert not list(results)


UNFORESEEN = [ZeroDivisionError("no number"), OSError(5, "odd"), StopIteration()]


class Bugs(UpscaleCallbacks):
    """Callbacks that collect bugs."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Exception]] = []

    def on_bug(self, file: InputFile, error: Exception) -> None:
        self.seen.append((Path(file.name).name, error))


@pytest.mark.parametrize("error", UNFORESEEN, ids=repr)
@pytest.mark.parametrize("place", ["open", "plan job", "existing", "decode", "plan", "network", "bands", "encode"])
def test_whatever_one_picture_raises_anywhere_fails_that_picture_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
) -> None:
    class Broken(RepeatUpscaler):
        def plan(self, job, streamed):
            fail_at("plan", job.file.source)
            return super().plan(job, streamed)

        def upscale(self, frame, plan, on_progress, on_warning) -> StreamedFrame:
            fail_at("network", plan.job.file.source)
            whole = super().upscale(frame, plan, on_progress, on_warning)

            def bands():
                for band in whole.bands():
                    yield band
                    fail_at("bands", plan.job.file.source)

            return StreamedFrame(whole.shape, bands(), whole.duration_ms)

    def fail_at(here: str, source: object) -> None:
        if here == place and isinstance(source, Path) and source.name == "b.png":
            raise error

    def failing(here: str, real: Callable, source_of: Callable) -> Callable:
        def call(*given: object, **named: object):
            fail_at(here, source_of(*given))
            return real(*given, **named)

        return call

    planner, module = pipeline_module.JobPlanner, pipeline_module
    opened = failing("open", inputs_module.open_picture, lambda source, options: source)
    monkeypatch.setattr(inputs_module, "open_picture", opened)
    monkeypatch.setattr(planner, "plan", failing("plan job", planner.plan, lambda self, file, header: file.source))
    existing = failing("existing", planner.existing_result, lambda self, job: job.file.source)
    monkeypatch.setattr(planner, "existing_result", existing)
    decode = failing("decode", PictureReader.frames, lambda self: Path(self._name))
    monkeypatch.setattr(PictureReader, "frames", decode)
    saved = failing(
        "encode",
        module.save_result,
        lambda target, *_: target and target.with_name("b.png") if target.name == "b_x4.png" else None,
    )
    monkeypatch.setattr(module, "save_result", saved)
    bugs = Bugs()
    inputs = [folder / name for name in ("a.jpg", "b.png", "c.webp")]
    results = list(upscale_files(inputs, EMBEDDED, bugs, upscaler=Broken()))
    assert states(results) == {"a.jpg": "done", "b.png": "failed", "c.webp": "done"}
    failure = next(result.error for result in results if result.error)
    assert failure is not None
    assert (failure.code == ErrorCode.BUG) == (not isinstance(error, OSError))
    assert [name for name, _ in bugs.seen] == ([] if isinstance(error, OSError) else ["b.png"])
    assert leftovers(folder) == []


def test_an_error_that_concerns_every_picture_ends_the_run(folder: Path) -> None:
    def fail(frame: Frame) -> None:
        raise WeightsError("the weights are gone")

    with pytest.raises(WeightsError):
        run([folder], upscaler=RepeatUpscaler(fail))
    assert leftovers(folder) == []


def test_an_interrupt_keeps_finished_pictures_and_reports_the_interrupted_one(folder: Path) -> None:
    calls: list[int] = []

    def interrupt(frame: Frame) -> None:
        calls.append(1)
        if len(calls) == 6:  # a, b, c, and the third frame of d
            raise KeyboardInterrupt

    results: list[FileResult] = []
    inputs = [folder / name for name in ("a.jpg", "b.png", "c.webp", "d.gif", "e.png")]
    with pytest.raises(KeyboardInterrupt):
        results.extend(upscale_files(inputs, EMBEDDED, upscaler=RepeatUpscaler(interrupt)))
    finished = dict.fromkeys(["a.jpg", "b.png", "c.webp"], "done")
    assert states(results).items() >= (finished | {"d.gif": "interrupted"}).items()
    assert states(results)["e.png"] in ("failed", "not-reached") and len(results) == len(inputs)
    assert sorted(path.name for path in folder.glob("*_x4*")) == ["a_x4.jpg", "b_x4.png", "c_x4.webp"]
    assert leftovers(folder) == []
    assert not any(thread.name == "dsclora-encode" for thread in threading.enumerate())


def test_closing_the_iterator_early_keeps_finished_pictures(folder: Path) -> None:
    inputs = [folder / name for name in ("a.jpg", "b.png", "c.webp")]
    with closing(upscale_files(inputs, EMBEDDED, upscaler=RepeatUpscaler())) as results:
        assert next(results).status == "done"
    assert (folder / "a_x4.jpg").exists()
    assert leftovers(folder) == []


def test_a_stop_waits_for_a_tile_and_not_for_a_band(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, stopped, tiles, closed = threading.Event(), threading.Event(), count(1), count(1)
    real = ByteBudget.close

    def close(budget: ByteBudget) -> None:
        real(budget)
        # A stop closes the queues before the network and the queues behind the network.
        if threading.current_thread() is threading.main_thread() and next(closed) == 2:
            stopped.set()

    class TiledUpscaler(RepeatUpscaler):
        def upscale(self, frame: AnyFrame, plan: object, on_progress: Callable[[float], None], on_warning: object):
            for tile in range(1, 101):
                next(tiles)
                begun.set()
                assert tile == 1 or stopped.wait(60)
                on_progress(tile / 100)
            return super().upscale(frame, plan, on_progress, on_warning)

    class Stopped(UpscaleCallbacks):
        def stop_requests(self) -> int:
            return int(begun.is_set())

    monkeypatch.setattr(ByteBudget, "close", close)
    with pytest.raises(KeyboardInterrupt):
        list(upscale_files([folder / "a.jpg"], EMBEDDED, Stopped(), upscaler=TiledUpscaler()))
    assert next(tiles) <= 3
    assert not (folder / "a_x4.jpg").exists() and leftovers(folder) == []


@pytest.mark.slow
def test_after_a_failure_with_fail_fast_a_stop_does_not_wait_for_a_download(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, reported, ended = (threading.Event() for _ in range(3))
    times: list[float] = []
    frames = count(1)
    real = pipeline_module.open_input

    def hang(file: InputFile, *rest: object) -> object:
        if Path(file.name).name == "d.gif":
            begun.set()
            ended.wait(60)
        return real(file, *rest)

    class StoppedLater(UpscaleCallbacks):
        def stop_requests(self) -> int:
            return int(bool(times) and monotonic() > times[0] + 1)

    def fail(frame: Frame) -> None:
        assert begun.wait(60)
        # The second picture ends after the report of the first failure, so the third is not begun.
        assert next(frames) == 1 or reported.wait(60)
        raise ImageError("a broken picture", "")

    monkeypatch.setattr(pipeline_module, "open_input", hang)
    options = replace(EMBEDDED, batch=BatchOptions(fail_fast=True))
    inputs = [folder / name for name in ("a.jpg", "b.png", "c.webp", "d.gif")]
    results = upscale_files(inputs, options, StoppedLater(), upscaler=RepeatUpscaler(fail))
    try:
        assert next(results).status == "failed"
        times.append(monotonic())
        reported.set()
        assert [next(results).status for _ in range(3)] == ["failed", "not-reached", "not-reached"]
        with pytest.raises(KeyboardInterrupt):
            next(results)
    finally:
        ended.set()


@pytest.mark.parametrize("rest", ["broken", "finished"])
def test_a_run_that_is_given_up_looks_at_no_more_pictures(
    rest: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:02}.png" for number in range(8)]
    for name in names:
        save_photo(folder / name, (12, 9))
    if rest == "finished":
        run([folder / name for name in names[2:]], upscaler=RepeatUpscaler())
    begun, ended, seen = threading.Event(), threading.Event(), []
    real = pipeline_module.open_input

    def watch(file: InputFile, *others: object) -> object:
        if Path(file.name).name in names[2:]:
            seen.append(file.name)
            begun.set()
            ended.wait(60)
            if rest == "broken":
                raise ImageError("a broken picture", "")
        return real(file, *others)

    monkeypatch.setattr(pipeline_module, "open_input", watch)
    monkeypatch.setattr(JobPlanner, "find_done", lambda planner, file: None)  # finds most results without a look inside
    results = upscale_files([folder / name for name in names], EMBEDDED, upscaler=RepeatUpscaler())
    assert next(results).status == "done" and begun.wait(60)
    results.close()
    ended.set()
    for thread in threading.enumerate():
        if thread.name == "dsclora-decode":
            thread.join()
    assert len(seen) == 1


def test_a_caller_that_is_slower_than_the_run_stops_the_run_after_any_result(folder: Path) -> None:
    asked: list[int] = []
    results: list[FileResult] = []

    class Asked(UpscaleCallbacks):
        def stop_requests(self) -> int:
            asked.append(len(results))
            return 0

    inputs = [folder / name for name in ("a.jpg", "b.png", "c.webp")]
    for result in upscale_files(inputs, EMBEDDED, Asked(), upscaler=RepeatUpscaler()):
        results.append(result)
        # From here on, an event always waits.
        for thread in threading.enumerate():
            if thread.name.startswith("dsclora-"):
                thread.join()
    assert {0, 1, 2, 3} <= set(asked)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell one start of the machine from another")
def test_a_run_with_nothing_to_do_removes_what_a_killed_process_has_left(folder: Path) -> None:
    inputs = [folder / "a.jpg", folder / "b.png"]
    run(inputs, upscaler=RepeatUpscaler())
    (folder / f".dsclora-{paths._kernel_tag()}0.part").touch()
    paths.remove_abandoned_files.cache_clear()
    assert states(run(inputs, upscaler=RepeatUpscaler())) == {"a.jpg": "skipped", "b.png": "skipped"}
    assert leftovers(folder) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        save_photo(tmp_path / f"{number:02}.png", (100, 80), seed=number)
    size = 100 * 80 * 3
    monkeypatch.setattr(pipeline_module, "pixel_budget", lambda limit: 20 * size)
    opened: list[Path] = []
    real = inputs_module.open_picture
    monkeypatch.setattr(
        inputs_module,
        "open_picture",
        lambda source, *rest, **named: opened.append(source) or real(source, *rest, **named),
    )
    ahead: list[int] = []

    def watch(frame: Frame) -> None:
        threading.Event().wait(0.05)
        ahead.append(len(opened) - len(ahead))

    results = run([tmp_path], upscaler=RepeatUpscaler(watch))
    assert len(results) == 12
    assert max(ahead) <= 5


def test_callbacks_are_called_in_the_thread_of_the_caller(folder: Path) -> None:
    class Recorder(UpscaleCallbacks):
        def __init__(self) -> None:
            self.words: list[str] = []

        def on_inputs(self, found: object) -> None:
            self.words.append("inputs")

        def on_note(self, note: str) -> None:
            self.words.append(note)

        def on_start(self, file: InputFile) -> None:
            self.words.append(f"start {file.stem}")

        def on_progress(self, file: InputFile, share: float) -> None:
            assert threading.current_thread() is threading.main_thread()
            self.words.append(f"{share:g}")

    recorder = Recorder()
    for result in upscale_files([folder / "d.gif", folder / "d.gif"], EMBEDDED, recorder, upscaler=RepeatUpscaler()):
        recorder.words.append(f"{result.status} {Path(result.input).stem}")
    assert recorder.words == ["inputs", "start d", "0.25", "0.5", "0.75", "1", "done d"]


class TestSeveralDevices:
    """Pipelines of two devices share the inputs of a batch."""

    @pytest.fixture(autouse=True)
    def two(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
        """Return the frames upscaled by each of two devices; both get a picture before either finishes."""
        frames: dict[str, list[int]] = {"cuda:0": [], "cuda:1": []}
        both = threading.Barrier(2, timeout=60)

        def opened(options: UpscaleOptions) -> RepeatUpscaler:
            def count(frame: Frame) -> None:
                mine = frames[options.engine.device]
                mine.append(1)
                if len(mine) == 1:
                    both.wait()

            return RepeatUpscaler(count)

        monkeypatch.setattr(batch_module, "list_devices", lambda engine: tuple(frames))
        monkeypatch.setattr(picture_module, "PictureUpscaler", opened)
        return frames

    def test_devices_share_pictures_and_none_is_upscaled_twice(self, tmp_path: Path, two: dict[str, list[int]]) -> None:
        for number in range(9):
            save_photo(tmp_path / f"{number}.png", seed=number)
        results = run([tmp_path])
        assert states(results) == {f"{number}.png": "done" for number in range(9)}
        assert len(list(tmp_path.glob("*_x4.png"))) == 9
        assert sum(map(len, two.values())) == 9 and all(two.values())

    def test_names_are_numbered_in_the_order_of_inputs(self, tmp_path: Path) -> None:
        for number in range(20):
            save_photo(tmp_path / f"{number % 10}.{'webp' if number < 10 else 'bmp'}", seed=number)
        inputs = [tmp_path / f"{number % 10}.{'webp' if number < 10 else 'bmp'}" for number in range(20)]
        results = run(inputs, replace(EMBEDDED, save=SaveOptions(format="PNG")))
        names = {result.input: Path(result.output or "").name for result in results}
        assert names == {
            str(path): f"{path.stem}_x4.png" if path.suffix == ".webp" else f"{path.stem}_x4-2.png" for path in inputs
        }

    def test_the_memory_limit_is_divided(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_photo(tmp_path / "a.png")
        limits: list[int | None] = []
        monkeypatch.setattr(
            picture_module, "PictureUpscaler", lambda options: limits.append(options.max_memory) or RepeatUpscaler()
        )
        run([tmp_path], replace(EMBEDDED, max_memory=2 * 10**9))
        assert limits == [10**9]

    def test_a_broken_picture_stops_no_device(self, folder: Path) -> None:
        more = [save_photo(folder / f"{number}.png", seed=number).name for number in range(9)]
        expected = dict.fromkeys(("a.jpg", "b.png", "c.webp", "d.gif", *more), "done")
        assert states(run([folder])) == expected | {"e.png": "failed", "Thumbs.db": "left-out"}

    def test_an_error_of_the_whole_run_stops_both_devices(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(12):
            save_photo(tmp_path / f"{number}.png", seed=number)
        both = threading.Barrier(2, timeout=60)

        def refuse(options: UpscaleOptions) -> RepeatUpscaler:
            both.wait()
            if options.engine.device == "cuda:1":
                raise WeightsError("the weights are damaged")
            return RepeatUpscaler()

        monkeypatch.setattr(picture_module, "PictureUpscaler", refuse)
        with pytest.raises(WeightsError):
            run([tmp_path])
        assert not any(thread.name in {"dsclora-network", "dsclora-encode"} for thread in threading.enumerate())
