"""`dsclora frames`, as users type it behind and in front of a pipe."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.imaging.raw_video import FrameLayout
from dsclora_cli.upscaling import frames

EMBEDDED = ("-m", "dsclora-x2", "-s", "2")
WIDTH, HEIGHT = 12, 9
LARGE = 24 * 18 * 3
"""Bytes of an upscaled frame."""


@pytest.fixture
def rgb() -> np.ndarray:
    """Three frames of 12x9."""
    corners = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 3), np.uint8)
    sides = (WIDTH, HEIGHT)
    return np.stack([np.asarray(Image.fromarray(each).resize(sides, Image.Resampling.BILINEAR)) for each in corners])


@pytest.fixture
def pipe(dsclora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run `dsclora frames` with bytes on stdin; return what was run and the bytes on stdout."""

    def run(stream: bytes, *arguments: object) -> tuple:
        (tmp_path / "stdin").write_bytes(stream)
        stdout = io.TextIOWrapper(io.BytesIO())
        with (tmp_path / "stdin").open() as stdin, monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", stdin)
            patched.setattr(sys, "stdout", stdout)
            ran = dsclora("frames", *arguments)
        return ran, stdout.buffer.getvalue()

    monkeypatch.chdir(tmp_path)
    return run


def y4m(frames: np.ndarray, layout: FrameLayout, name: str, more: str = "") -> bytes:
    head = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C{name}{more}\n".encode()
    return head + b"".join(b"FRAME\n" + layout.to_bytes(each / np.float32(255)) for each in frames)


def test_a_reader_that_breaks_ends_the_command(pipe, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("dsclora_cli.upscaling.frames.read_frame", break_down)
    ran, out = pipe(rgb.tobytes(), "--size", "12x9", *EMBEDDED)
    assert (ran.code, out) == (1, b"")


@pytest.mark.parametrize("kind", ["y4m", "rgb"])
def test_the_main_thread_never_waits_for_the_source(
    pipe, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """On Windows, Ctrl-C would not end such a wait."""
    threads = []
    for name in ("read_header", "read_frame"):
        read = getattr(frames, name)

        def recorded(*arguments: object, read=read) -> object:
            threads.append(threading.current_thread())
            return read(*arguments)

        monkeypatch.setattr(frames, name, recorded)
    raw = [] if kind == "y4m" else ["--size", f"{WIDTH}x{HEIGHT}"]
    stream = rgb.tobytes() if raw else y4m(rgb, FrameLayout(WIDTH, HEIGHT, "444", matrix="bt601"), "444")
    assert pipe(stream, *raw, *EMBEDDED)[0].code == 0
    assert len(threads) >= 4 and threading.main_thread() not in threads


def test_raw_frames_equal_pictures(dsclora, pipe, rgb: np.ndarray) -> None:
    ran, out = pipe(rgb.tobytes(), "--size", "12x9", *EMBEDDED)
    assert ran.code == 0
    assert ran.err.startswith("3 frames, 12x9 -> 24x18 (rgb, 8 bits)  ")
    assert re.search(r"frames/s  \(dsclora-x2 on cpu by (native|torch)\)", ran.err)
    assert pipe(rgb.tobytes(), "--size", "12x9", "-o", "-", *EMBEDDED)[1] == out
    upscaled = np.frombuffer(out, np.uint8).reshape(3, 18, 24, 3)
    for number, frame in enumerate(rgb):
        Image.fromarray(frame).save(f"{number}.png")
        assert dsclora("upscale", f"{number}.png", *EMBEDDED).code == 0
        assert np.array_equal(upscaled[number], np.asarray(Image.open(f"{number}_x2.png")))


def test_frames_are_as_sharp_as_pictures(dsclora, pipe, rgb: np.ndarray) -> None:
    sharp = ("-m", "dsclora-x4-photo", "--sharp", "0.75")
    _, out = pipe(rgb[:1].tobytes(), "--size", "12x9", *sharp)
    Image.fromarray(rgb[0]).save("0.png")
    assert dsclora("upscale", "0.png", *sharp).code == 0
    assert out == np.asarray(Image.open("0_x4.png")).tobytes()
    assert pipe(rgb[:1].tobytes(), "--size", "12x9", *sharp[:2])[1] != out


@pytest.mark.parametrize("name", ["420jpeg", "420mpeg2", "422", "444", "420p10", "mono"])
def test_a_y4m_stream_keeps_everything_but_the_size(pipe, rgb: np.ndarray, name: str) -> None:
    siting = (name != "420jpeg", False)
    layout = FrameLayout(WIDTH, HEIGHT, name[:3] if name != "mono" else name, siting, 10 if "p10" in name else 8)
    frames = rgb[..., :1] if name == "mono" else rgb
    ran, out = pipe(y4m(frames, layout, name, " XCOLORRANGE=LIMITED"), *EMBEDDED)
    assert ran.code == 0
    head, *rest = out.split(b"\n", 1)
    assert head == f"YUV4MPEG2 W24 H18 F25:1 Ip A1:1 C{name} XCOLORRANGE=LIMITED".encode()
    larger = layout.with_size(24, 18)
    assert len(rest[0]) == 3 * (len(b"FRAME\n") + larger.frame_bytes)
    for number in range(3):
        part = rest[0][number * (6 + larger.frame_bytes) :][: 6 + larger.frame_bytes]
        assert part.startswith(b"FRAME\n")
        small = layout.to_pixels(layout.to_bytes(frames[number] / np.float32(255)))
        reduced = larger.to_pixels(part[6:]).reshape(9, 2, 12, 2, -1).mean(axis=(1, 3))
        assert np.abs(reduced - small).mean() < 0.05


def test_matrix_and_range_are_honoured(pipe, rgb: np.ndarray) -> None:
    """The same colors in another matrix and range become the same upscaled colors."""
    upscaled = []
    for matrix, full in (("bt601", False), ("bt709", True), ("bt2020", False)):
        layout = FrameLayout(WIDTH, HEIGHT, "444", bits=16, matrix=matrix, full_range=full)
        options = ("--matrix", matrix, "--range", "full" if full else "limited")
        ran, out = pipe(y4m(rgb, layout, "444p16"), *EMBEDDED, *options)
        assert ran.code == 0
        larger = layout.with_size(24, 18)
        upscaled.append(larger.to_pixels(out[-larger.frame_bytes :]))
    assert np.abs(upscaled[0] - upscaled[1]).max() < 1e-3
    assert np.abs(upscaled[0] - upscaled[2]).max() < 1e-3


def test_the_range_of_the_stream_is_taken(pipe, rgb: np.ndarray) -> None:
    layout = FrameLayout(WIDTH, HEIGHT, "444", full_range=True)
    stated, out = pipe(y4m(rgb, layout, "444", " XCOLORRANGE=FULL"), *EMBEDDED)
    asked, same = pipe(y4m(rgb, layout, "444"), *EMBEDDED, "--range", "full")
    assert (stated.code, asked.code) == (0, 0)
    assert out.split(b"\n", 1)[1] == same.split(b"\n", 1)[1]


def test_a_note_where_players_would_take_another_matrix(pipe) -> None:
    layout = FrameLayout(2, 360, "420", (False, False))
    stream = b"YUV4MPEG2 W2 H360 C420jpeg\nFRAME\n" + layout.to_bytes(np.full((360, 2, 3), 0.5, np.float32))
    assert "note: y4m does not state the colour matrix" in pipe(stream, *EMBEDDED)[0].err
    assert "note" not in pipe(stream, *EMBEDDED, "--matrix", "bt709")[0].err
    assert pipe(stream, *EMBEDDED, "-q")[0].err == ""


def test_a_note_where_auto_could_not_get_its_first_choice(pipe, rgb: np.ndarray) -> None:
    stream = y4m(rgb, FrameLayout(WIDTH, HEIGHT, "444", (False, False)), "444")
    assert (
        "note: dscf-x4 could not be fetched (offline): using the embedded dsclora-x4\n"
        in pipe(stream, "--offline")[0].err
    )


def test_a_cut_stream_keeps_the_whole_frames(pipe, rgb: np.ndarray) -> None:
    ran, out = pipe(rgb.tobytes()[:-5], "--size", "12x9", *EMBEDDED)
    assert ran.code == 1
    reason = "stdin ends inside frame 3: 319 of 324 bytes; the first 2 frames are on stdout"
    assert ran.err == f"error: {reason} (check the program that writes the video, and the size)\n"
    assert len(out) == 2 * LARGE


@pytest.mark.parametrize("is_there", [False, True])
def test_a_cut_stream_keeps_the_whole_frames_next_to_the_file(pipe, rgb: np.ndarray, is_there: bool) -> None:
    whole = FrameLayout(WIDTH, HEIGHT, "444")
    stream = y4m(rgb, whole, "444")
    _, expected = pipe(stream, *EMBEDDED)
    if is_there:
        Path("large.y4m").write_text("a whole video")
    for name in ("large-incomplete.y4m", "large-incomplete-2.y4m"):
        ran, out = pipe(stream[:-5], *EMBEDDED, "-q", "-o", "large.y4m", "--overwrite")
        assert (ran.code, out) == (1, b"")
        assert f"ends inside frame 3: 319 of 324 bytes; the first 2 frames are in {name} (" in ran.err
        assert Path(name).read_bytes() == expected[: -LARGE - len("FRAME\n")]
    assert Path("large.y4m").exists() == is_there
    assert not is_there or Path("large.y4m").read_text() == "a whole video"
    assert not list(Path().glob(".dsclora*"))


def test_without_a_whole_frame_nothing_is_kept(pipe, rgb: np.ndarray) -> None:
    ran, _ = pipe(rgb.tobytes()[:99], "--size", "12x9", *EMBEDDED, "-o", "large.rgb")
    assert (ran.code, "ends inside frame 1: 99 of 324 bytes (check" in ran.err) == (1, True)
    assert [path.name for path in Path().iterdir() if "large" in path.name or path.name.startswith(".dsclora")] == []


def test_json_names_the_incomplete_file(pipe, rgb: np.ndarray) -> None:
    """Cut a long name, take the folder that a link leads to, and name the place in the message of the JSON."""
    Path("folder").mkdir()
    Path("link.rgb").symlink_to(Path("folder", "x" * 251 + ".rgb"))
    ran, out = pipe(rgb.tobytes()[:330], "--size", "12x9", *EMBEDDED, "-q", "-o", "link.rgb", "--json")
    place = Path("folder", "x" * 240 + "-incomplete.rgb").resolve()
    assert json.loads(out)["error"]["message"].endswith(f"; the first frame is in {place}")
    assert (ran.code, place.stat().st_size, Path("link.rgb").exists()) == (1, LARGE, False)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            KeyboardInterrupt(),
            130,
            "interrupted: the video is incomplete; the first frame is in large-incomplete.rgb\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            (
                "error: large.rgb cannot be written (No space left on device);"
                " the first frame is in large-incomplete.rgb (free some space)\n"
            ),
        ),
    ],
)
def test_frames_survive_other_failures(
    pipe, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    written = FrameLayout.to_bytes
    calls = iter([None, error])

    def write(layout: FrameLayout, pixels: np.ndarray) -> bytes:
        if failure := next(calls):
            raise failure
        return written(layout, pixels)

    monkeypatch.setattr(FrameLayout, "to_bytes", write)
    ran, _ = pipe(rgb.tobytes(), "--size", "12x9", *EMBEDDED, "-q", "-o", "large.rgb")
    assert (ran.code, ran.err) == (code, message)
    assert (Path("large-incomplete.rgb").stat().st_size, Path("large.rgb").exists()) == (LARGE, False)


@pytest.mark.parametrize("options", [(), ("-q",), ("--json",)])
def test_an_interrupt_before_the_first_frame_is_one_line(
    pipe, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FrameLayout, "to_bytes", interrupt)
    ran, out = pipe(rgb.tobytes(), "--size", "12x9", *EMBEDDED, "-o", "large.rgb", *options)
    assert (ran.code, ran.err) == (130, "interrupted: the command did not finish\n")
    assert not options[1:] or json.loads(out)["error"]["code"] == "interrupted"
    assert not Path("large.rgb").exists()


def test_names_of_encoded_files_are_refused_before_anything_is_read(pipe, rgb: np.ndarray) -> None:
    for name in ("v.mp4", "my v.MKV", "v.mov", "v.avi", "v.webm", "v.gif", "v.mpg", "v.ts", "v.png", "v.jpg", "v.tif"):
        ran, _ = pipe(b"", "-o", name)
        suffix = Path(name).suffix.lower()
        assert ran.err.startswith(
            f"error: {name}: frames writes uncompressed video, and no {suffix} file (leave -o out"
        )
        assert f"| ffmpeg -i - {shlex.quote(name)}; or name a file that ends with .y4m)" in ran.err
        assert (ran.code, Path(name).exists()) == (2, False)
    assert "ffmpeg -f rawvideo -pix_fmt rgb24 -s WxH -i - v.mp4" in pipe(b"", "-o", "v.mp4", "--size", "12x9")[0].err


@pytest.mark.parametrize("name", ["v.y4m", "v.rgb", "v.raw", "v.yuv", "v", "v.2"])
def test_other_names_are_taken(pipe, rgb: np.ndarray, name: str) -> None:
    assert pipe(rgb.tobytes(), "--size", "12x9", *EMBEDDED, "-q", "-o", name)[0].code == 0
    assert Path(name).stat().st_size == 3 * LARGE


def test_a_frame_of_another_length_is_named(pipe, rgb: np.ndarray) -> None:
    layout = FrameLayout(WIDTH, HEIGHT, "444")
    head, *parts = y4m(rgb, layout, "444").split(b"FRAME\n")
    frames = [b"FRAME\n" + each for each in parts]
    for stray in (b"x" * 5000, b"\n", b"x\n"):
        ran, _ = pipe(head + frames[0] + stray + frames[1], *EMBEDDED)
        assert ran.code == 1
        assert "error: stdin holds no y4m frame at frame 2; the first frame is on stdout (check the program" in ran.err


@pytest.mark.parametrize("count", [1, 2])
def test_wrong_frames_of_ffmpeg_for_an_odd_width_are_explained(pipe, count: int) -> None:
    """ffmpeg 5.1 writes 13 bytes of chroma for a row of 13 columns, where 7 samples of 10 bits need 14."""
    frame = b"FRAME\n" + b"\x01" * (13 * 9 * 2 + 13 * 5 * 2)
    ran, _ = pipe(b"YUV4MPEG2 W13 H9 F25:1 C420p10\n" + frame * count, *EMBEDDED, "-q")
    step = "make the width even: add -vf 'crop=trunc(iw/2)*2:ih' to the ffmpeg that reads the video"
    assert f"(ffmpeg writes wrong frames for an odd width above 8 bits; {step})" in ran.err
    place = "stdin holds no y4m frame at frame 2" if count > 1 else "stdin ends inside frame 1"
    assert (ran.code, place in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("stream", "arguments", "code", "message"),
    [
        (b"", [], 1, "stdin is empty"),
        (b"\x00" * 40, [], 1, "stdin holds no y4m video"),
        (b"YUV4MPEG2 W64 H4", [], 1, "stdin ends inside the y4m header (check the program that writes the video)"),
        (b"YUV4MPEG2 W12 H9 It\n", [], 1, "the video is interlaced: a frame holds two moments (add -vf bwdif"),
        (b"YUV4MPEG2 W30000 H30000\n", [], 1, "claims 30000 x 30000 pixels, more than the 200 million allowed at once"),
        (b"YUV4MPEG2 W12 H9\n", ["--width", "6"], 1, "already large enough at 12x9"),
        (b"", ["--size", "12"], 2, "'12' is not WxH"),
        (b"", ["--size", "12x9", "--matrix", "bt709"], 2, "--matrix and --range concern YUV video"),
        (b"", ["--json"], 2, "--json and the video would both go to stdout"),
    ],
)
def test_refusals(pipe, stream: bytes, arguments: list[str], code: int, message: str) -> None:
    ran, _ = pipe(stream, *arguments)
    assert (ran.code, message in ran.err) == (code, True)
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(("stream", "size"), [(b"YUV4MPEG2 W12 H9 F25:1\n", ()), (b"", ("--size", "12x9"))])
def test_a_video_without_a_frame_is_an_error_and_replaces_nothing(pipe, stream: bytes, size: tuple[str, ...]) -> None:
    Path("good.rgb").write_text("precious")
    message = "error: stdin holds no frame (check the program that writes the video)\n"
    for output in ((), ("-o", "new.rgb"), ("-o", "good.rgb", "--overwrite")):
        ran, out = pipe(stream, *size, *EMBEDDED, *output)
        assert (ran.code, ran.err, out) == (1, message, b"")
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == {"good.rgb": b"precious", "stdin": stream}
    ran, out = pipe(stream, *size, *EMBEDDED, "-o", "new.rgb", "--json")
    assert (ran.code, json.loads(out)["error"]["code"]) == (1, "image-unreadable")


def test_no_video_on_a_terminal(dsclora, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    ran = dsclora("frames")
    assert (ran.code, "no video comes on stdin" in ran.err) == (2, True)


def test_a_file_and_json(pipe, rgb: np.ndarray) -> None:
    ran, out = pipe(rgb.tobytes(), "--size", "12x9", *EMBEDDED, "-o", "large.rgb", "--json", "-q")
    assert (ran.code, ran.err) == (0, "")
    result = json.loads(out)
    assert (result["version"], result["frames"], result["output_size"]) == (1, 3, [24, 18])
    assert result["frames_per_second"] > 0
    assert Path("large.rgb").stat().st_size == 3 * 24 * 18 * 3
    failed, _ = pipe(rgb.tobytes(), "--size", "12x9", *EMBEDDED, "-o", "no/large.rgb")
    message = "no/large.rgb cannot be written (No such file or directory) (check the path)"
    assert (failed.code, failed.err) == (1, f"error: {message}\n")


def test_an_existing_file_is_replaced_only_on_request(pipe, rgb: np.ndarray) -> None:
    run = (rgb.tobytes(), "--size", "12x9", *EMBEDDED, "-q", "-o")
    Path("mine").write_text("precious")
    ran, _ = pipe(*run, "mine")
    message = "error: mine exists already (choose another name with -o, or add --overwrite)\n"
    assert (ran.code, ran.err, Path("mine").read_text()) == (2, message, "precious")
    Path("link").symlink_to("mine")
    assert pipe(*run, "link", "--overwrite")[0].code == 0
    assert (Path("link").is_symlink(), Path("mine").stat().st_size) == (True, 3 * 24 * 18 * 3)


@pytest.mark.parametrize("name", ["stdin", "link"])
def test_the_video_on_stdin_is_never_replaced(pipe, rgb: np.ndarray, name: str) -> None:
    Path("link").symlink_to("stdin")
    ran, _ = pipe(rgb.tobytes(), "--size", "12x9", *EMBEDDED, "-o", name, "--overwrite")
    message = f"error: {name} is the video on stdin itself (choose another name with -o)\n"
    assert (ran.code, ran.err, Path("stdin").read_bytes()) == (2, message, rgb.tobytes())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_written_to(pipe, rgb: np.ndarray) -> None:
    run = (rgb.tobytes(), "--size", "12x9", *EMBEDDED, "-q", "-o")
    os.mkfifo("pipe")
    with ThreadPoolExecutor(1) as reader:
        received = reader.submit(Path("pipe").read_bytes)
        ran, _ = pipe(*run, "pipe")
        assert (ran.code, len(received.result(60))) == (0, 3 * 24 * 18 * 3)
    assert Path("pipe").is_fifo()
    assert pipe(*run, os.devnull)[0].code == 0
    assert Path(os.devnull).is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(dsclora, rgb: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stdin").write_bytes(rgb.tobytes())
    with (tmp_path / "stdin").open() as stdin, Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(full))
        ran = dsclora("frames", "--size", "12x9", *EMBEDDED)
    hint = "free some space"
    assert (ran.code, ran.err) == (1, f"error: stdout cannot be written (No space left on device) ({hint})\n")


@pytest.mark.slow
def test_ffmpeg_on_both_sides(tmp_path: Path) -> None:
    """The command of the help: number of frames, duration and sound stay, and frames are those of `upscale`."""
    ffmpeg, probe = shutil.which("ffmpeg"), shutil.which("ffprobe")
    if not ffmpeg or not probe:
        pytest.skip("ffmpeg is not installed")

    def run(line: str) -> str:
        return subprocess.run(line, shell=True, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    python = f"{sys.executable} -m dsclora_cli"
    quiet = f"{ffmpeg} -v error -y"
    run(
        f"{quiet} -f lavfi -i testsrc=size=64x48:rate=25:duration=1 -f lavfi -i sine=duration=1 -c:v ffv1"
        " -pix_fmt yuv444p -c:a pcm_s16le in.mkv"
    )
    run(
        f"{quiet} -i in.mkv -f yuv4mpegpipe - | {python} frames -s 2 -m dsclora-x2 |"
        f" {quiet} -i - -i in.mkv -map 0:v -map '1:a?' -c:v ffv1 -c:a copy out.mkv"
    )
    entries = "stream=codec_name,width,height,nb_read_frames"
    picture, sound = run(f"{probe} -v error -count_frames -show_entries {entries} -of csv=p=0 out.mkv").splitlines()
    assert picture == "ffv1,128,96,25"
    assert sound.startswith("pcm_s16le,")
    length = f"{probe} -v error -show_entries format=duration -of csv=p=0"
    assert float(run(f"{length} in.mkv")) == pytest.approx(float(run(f"{length} out.mkv")), abs=0.05)
    exact = "-frames:v 1 -sws_flags accurate_rnd+full_chroma_int -pix_fmt rgb24"
    run(f"{quiet} -i in.mkv {exact} small.png && {quiet} -i out.mkv {exact} large.png")
    run(f"{python} upscale small.png -s 2 -m dsclora-x2 -o expected.png")
    large, expected = (np.asarray(Image.open(tmp_path / name), int) for name in ("large.png", "expected.png"))
    assert np.abs(large - expected).mean() < 1.0
