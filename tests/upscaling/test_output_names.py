"""Names and folders of results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsclora_cli.config import BatchOptions, SaveOptions, UpscaleOptions
from dsclora_cli.errors import ImageUnwritable, UsageError
from dsclora_cli.upscaling.output_names import OutputNamer, check_template, is_below, parse_format, possible_stems
from dsclora_cli.upscaling.sizes import SizePlan
from dsclora_cli.upscaling.types import FoundInputs, InputFile

SIZE = SizePlan(40, 30, (4,), 4.0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def targets(
    *inputs: str | bytes, output: str | None = None, name: str = BatchOptions().name, format: str | None = None
) -> list[str | None]:
    """Where the results of these inputs go, each of the format that its own name tells."""
    sources = tuple(InputFile(item, "-") if isinstance(item, bytes) else InputFile(Path(item), item) for item in inputs)
    options = UpscaleOptions(save=SaveOptions(format=format), batch=BatchOptions(output=output, name=name))
    namer = OutputNamer(FoundInputs(sources, many=len(sources) > 1), options)
    paths = [
        namer.target(source, SIZE, "dscf-x4", namer.format or parse_format(source.name[-3:])).path
        if isinstance(source.source, Path)
        else namer.target(source, SIZE, "dscf-x4", namer.format or "PNG").path
        for source in sources
    ]
    return [None if path is None else path.as_posix() for path in paths]


def test_the_default_is_next_to_the_input_with_the_same_suffix() -> None:
    assert targets("x/a.png", "y/b.JPG") == ["x/a_x4.png", "y/b_x4.JPG"]


def test_every_field_of_the_template() -> None:
    assert targets("a.png", name="{stem}-{scale}-{model}-{width}x{height}.{ext}") == ["a-4-dscf-x4-40x30.png"]


@pytest.mark.parametrize(("factor", "shown"), [(4.0, "4"), (2.5, "2.5"), (2.5333, "2.53")])
def test_scales_are_rounded_to_two_digits(factor: float, shown: str) -> None:
    source = InputFile(Path("a.png"), "a.png")
    namer = OutputNamer(FoundInputs((source,), many=False), UpscaleOptions())
    assert namer.target(source, replace(SIZE, factor=factor), "m", "PNG").path == Path(f"a_x{shown}.png")


@pytest.mark.parametrize(
    ("output", "path"),
    [
        ("large.png", "large.png"),
        ("out/large.png", "out/large.png"),
        ("out", "out/a_x4.png"),
        ("out.d/", "out.d/a_x4.png"),
        ("there.png", "there.png/a_x4.png"),
        ("-", None),
    ],
)
def test_output_is_a_file_a_folder_or_stdout(output: str, path: str | None) -> None:
    Path("there.png").mkdir()
    assert targets("x/a.png", output=output) == [path]


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("x" * 251 + ".png", None),
        ("a.png", "x" * 250 + ".tif.tif.png"),
        ("a.png", "\N{LATIN SMALL LETTER A WITH DIAERESIS}" * 126 + ".png"),
        ("x" * 251 + ".png", "out"),
        ("a.png", "x" * 256 + "/new/a.png"),
    ],
)
def test_a_name_that_the_file_system_does_not_take_is_refused_before_any_work(name: str, output: str | None) -> None:
    with pytest.raises(ImageUnwritable, match="File name too long") as caught:
        targets(name, output=output)
    assert caught.value.hint == "choose a shorter name with -o or --name"
    assert targets(name, output="y" * 251 + ".png", name="{scale}.{ext}") == ["y" * 251 + ".png"]
    assert targets(name, name="{scale}.{ext}") == ["4.png"]


def test_several_inputs_make_the_output_a_folder() -> None:
    assert targets("x/a.png", "b.png", output="v1.0") == ["v1.0/a_x4.png", "v1.0/b_x4.png"]
    Path("file.png").touch()
    with pytest.raises(UsageError, match=r"-o file\.png is a file, and there are several pictures"):
        targets("a.png", "b.png", output="file.png")
    with pytest.raises(UsageError, match="-o - takes one picture"):
        targets("a.png", "b.png", output="-")


def test_the_tree_of_a_folder_is_kept() -> None:
    source = InputFile(Path("in/x/y/a.png"), "a", folder=Path("x/y"))
    namer = OutputNamer(FoundInputs((source,), many=True), UpscaleOptions(batch=BatchOptions(output="out")))
    assert namer.target(source, SIZE, "m", "PNG").path == Path("out/x/y/a_x4.png")


def test_standard_input_goes_to_standard_output_unless_told_otherwise() -> None:
    assert targets(b"...") == [None]
    assert targets(b"...", output="out") == ["out/stdin_x4.png"]


def test_equal_names_are_numbered_in_order_with_a_note() -> None:
    assert targets("x/a.png", "y/a.png", "z/a.png", output="out") == [
        *("out/a_x4.png", "out/a_x4-2.png", "out/a_x4-3.png"),
    ]
    sources = (InputFile(Path("x/a.png"), ""), InputFile(Path("y/a.png"), ""))
    namer = OutputNamer(FoundInputs(sources, many=True), UpscaleOptions(batch=BatchOptions(output="out")))
    first, second = (namer.target(source, SIZE, "m", "PNG") for source in sources)
    assert first.note is None
    assert second.note == "named a_x4-2.png, because a_x4.png is taken in this run"


def test_a_result_never_replaces_an_input() -> None:
    with pytest.raises(UsageError, match=r"the result of a\.png would replace the input"):
        targets("a.png", name="{stem}.{ext}")
    with pytest.raises(UsageError, match="would replace the input"):
        targets("x/../a.png", output="a.png")
    first, other = InputFile(Path("a.png"), ""), InputFile(Path("40.png"), "")
    namer = OutputNamer(
        FoundInputs((first, other), many=True), UpscaleOptions(batch=BatchOptions(name="{width}.{ext}"))
    )
    assert namer.target(first, SIZE, "m", "PNG").path == Path("40-2.png")


def test_an_input_under_another_name_is_the_same_file() -> None:
    Path("a.png").touch()
    Path("b.png").hardlink_to("a.png")
    with pytest.raises(UsageError, match="would replace the input"):
        targets("a.png", output="b.png")


def test_format_is_the_option_else_the_name_else_the_input() -> None:
    assert targets("a.png", format="jpg") == ["a_x4.jpg"]
    assert targets("a.png", format="WEBP", name="{stem}.big.{ext}") == ["a.big.webp"]
    source = InputFile(Path("a.png"), "a.png")
    for batch in (BatchOptions(output="b.tif"), BatchOptions(name="{stem}_large.tif")):
        assert OutputNamer(FoundInputs((source,), many=False), UpscaleOptions(batch=batch)).format == "TIFF"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "doc"}, '--format doc: no picture format has the suffix ".doc"'),
        ({"output": "a.doc"}, 'a.doc: no picture format has the suffix ".doc"'),
        ({"output": "b.png", "format": "jpg"}, "--format jpg and the name b.png disagree"),
    ],
)
def test_an_unknown_format_or_suffix_is_a_usage_error(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        targets("a.png", **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "format"), [("jpg", "JPEG"), ("JPEG", "JPEG"), (".tif", "TIFF"), ("jpeg2000", "JPEG2000")]
)
def test_common_names_of_formats_are_understood(name: str, format: str) -> None:
    assert parse_format(name) == format


@pytest.mark.parametrize(
    ("template", "name", "stems"),
    [
        ("{stem}_x{scale}.{ext}", "a_x4.png", {"a"}),
        ("{stem}_x{scale}.{ext}", "a_x2.5-3.png", {"a"}),
        ("{stem}_x{scale}.{ext}", "a_xl.png", set()),
        ("{stem}_{model}.{ext}", "my_a_team23_DSCF.png", {"my", "my_a_team23"}),
        ("{stem}.{ext}", "a.png", set()),
        ("{width}.{ext}", "40.png", set()),
    ],
)
def test_possible_stems_reads_a_template_backwards(template: str, name: str, stems: set[str]) -> None:
    check_template(template)
    assert set(possible_stems(template, name)) == stems


STEMS = st.text("aA1-_x.{} ü", min_size=1, max_size=8).filter(lambda stem: stem.strip(". ") and not stem.endswith("."))


@pytest.mark.slow
@given(
    stem=STEMS,
    template=st.sampled_from(
        ["{stem}_x{scale}.{ext}", "{width}-{stem}.{ext}", "up_{stem}-{height}.png", "{stem}@{model}.{ext}"]
    ),
    number=st.sampled_from(["", "-2", "-31"]),
)
def test_every_result_name_leads_back_to_its_input(stem: str, template: str, number: str) -> None:
    source = InputFile(Path(f"{stem}.png"), "")
    namer = OutputNamer(FoundInputs((source,), many=False), UpscaleOptions(batch=BatchOptions(name=template)))
    path = namer.target(source, SIZE, "dscf-x4", "PNG").path
    assert path is not None
    assert stem in set(possible_stems(template, f"{path.stem}{number}{path.suffix}"))


@given(st.lists(st.sampled_from(["x/a.png", "x/a.jpg", "y/a.png", "y/b.png", "b.tif", "out/a_x4.png"]), unique=True))
def test_no_two_results_of_a_run_share_a_name(names: list[str]) -> None:
    sources = tuple(InputFile(Path(name), name) for name in names)
    options = UpscaleOptions(save=SaveOptions(format="png"), batch=BatchOptions(output="out"))
    namer = OutputNamer(FoundInputs(sources, many=True), options)
    paths = [namer.target(source, SIZE, "m", "PNG").path for source in sources]
    assert len(set(paths)) == len(paths)
    assert not set(paths) & {source.source for source in sources}


@pytest.mark.parametrize(
    ("folder", "name", "is_inside"),
    [
        (PureWindowsPath("a/b"), "c_x2.png", True),
        (PureWindowsPath("."), "..\\c_x2.png", False),
        (PureWindowsPath("."), "c:x_x2.png", False),
        (PureWindowsPath("a\\..\\.."), "c_x2.png", False),
        (PureWindowsPath("c:\\windows"), "c_x2.png", False),
        (PureWindowsPath("\\windows"), "c_x2.png", False),
        (PurePosixPath("a"), "..\\c:x_x2.png", True),
        (PurePosixPath("../a"), "c_x2.png", False),
        (PurePosixPath("/a"), "c_x2.png", False),
    ],
)
def test_names_of_objects_stay_below_the_folder_of_results(folder: PurePath, name: str, is_inside: bool) -> None:
    assert is_below(folder, name) is is_inside
