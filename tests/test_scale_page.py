"""The recipes of docs/scale.md: YAML and shell that parse, options that exist, and scripts that run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from evaluations import save_set

from dsclora_cli.cli.app import application
from dsclora_cli.datasets.benchmarks import read_rgb
from dsclora_cli.imaging.resize import downscale

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

PAGE = (Path(__file__).parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def strings(value: Any) -> list[str]:
    """All texts in parsed YAML."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in strings(each)]
    return [text for each in value for text in strings(each)] if isinstance(value, list) else [str(value)]


def test_yaml_holds_the_kinds_that_the_page_promises() -> None:
    parsed = [yaml.safe_load(block) for block in blocks("yaml")]
    kinds = [each.get("kind") or each.get("type") or each["cluster_name"] for each in parsed]
    assert kinds == ["Job", "container", "dsclora", "RayJob"]
    job, batch, cluster, ray_job = parsed
    assert job["spec"]["completionMode"] == "Indexed" and job["spec"]["completions"] == 20
    assert "auto/20" in job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert batch["containerProperties"]["command"][-2:] == ["--shard", "auto"]
    assert cluster["head_node_type"] in cluster["available_node_types"]
    groups = [
        ray_job["spec"]["rayClusterSpec"]["headGroupSpec"],
        *ray_job["spec"]["rayClusterSpec"]["workerGroupSpecs"],
    ]
    for group in groups:
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("command", [("bash", "-n"), ("shellcheck", "--shell=bash", "-")])
def test_the_shell_is_sound(command: tuple[str, ...]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    assert len(blocks("bash")) == 6
    for block in blocks("bash"):
        done = subprocess.run(command, input=block, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_scores_of_jobs_are_the_scores_of_one_machine(tmp_path: Path) -> None:
    """The scripts of the page, with two jobs: the last command only reads the scores of the jobs."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "dsclora"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dsclora_cli "$@"\n')
    program.chmod(0o755)
    folder = save_set(tmp_path / "data" / "hr")
    job, report = (block.replace("/data/", f"{tmp_path}/data/") for block in blocks("bash") if "dsclora eval" in block)
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    def run(script: str, **variables: str) -> None:
        environment = {**os.environ, **path, **variables}
        subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", script], env=environment, cwd=tmp_path, check=True)

    for number in range(2):
        run(job.replace("% 20", "% 2"), SLURM_ARRAY_TASK_ID=str(number), SLURM_CPUS_PER_TASK="1")
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "data" / "state" / "eval").iterdir()}
    assert len(kept) == 2 * len(list(folder.iterdir())), "of the model and of bicubic"
    run(report)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "data" / "state" / "eval").iterdir()} == kept
    together = json.loads((tmp_path / "scores.json").read_text())["sets"]
    run(report.replace("data/state", "data/other"))
    assert json.loads((tmp_path / "scores.json").read_text())["sets"] == together


def test_the_snippet_makes_the_lr_of_a_training_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (file, *_) = save_set(tmp_path / "photos").iterdir()
    (snippet,) = blocks("python")
    exec(compile(snippet, "scale.md", "exec"), {})
    assert np.array_equal(read_rgb(tmp_path / "lr" / f"{file.stem}.png"), downscale(read_rgb(file), 4))


def test_every_option_of_a_recipe_exists() -> None:
    commands = [" ".join(strings(yaml.safe_load(block))) for block in blocks("yaml")[:2]]
    commands.append(yaml.safe_load(blocks("yaml")[3])["spec"]["entrypoint"])
    used = options_of("upscale", *commands)
    assert {"--executor", "--ray-address", "--shard", "--offline", "-r"} <= used <= known_options("upscale")
    for name, some in (("eval", {"--hr", "--scale"}), ("train", {"--teacher-images", "--rec"})):
        assert some <= options_of(name) <= known_options(name)


def options_of(name: str, *more: str) -> set[str]:
    """The options of a command in the shell of the page, and in more texts."""
    texts = [text for block in blocks("bash") for text in re.findall(rf"dsclora {name} (?:\\\n|.)*", block)]
    return {option for text in (*texts, *more) for option in re.findall(r"(?<= )--?[a-z][a-z-]*", text)}


def known_options(name: str) -> set[str]:
    command: Any = typer.main.get_command(application([name]))
    return {option for parameter in command.commands[name].params for option in parameter.opts}
