"""The recipes of docs/scale.md: YAML that parses, shell that parses, and options that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from dsclora_cli.cli.app import application

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


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_shell_parses() -> None:
    assert len(blocks("bash")) == 3
    for block in blocks("bash"):
        done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_every_option_of_a_recipe_exists() -> None:
    command: Any = typer.main.get_command(application(["upscale"]))
    known = {option for parameter in command.commands["upscale"].params for option in parameter.opts}
    commands = [text for block in blocks("bash") for text in re.findall(r"dsclora upscale (?:\\\n|.)*", block)]
    commands += [" ".join(strings(yaml.safe_load(block))) for block in blocks("yaml")[:2]]
    commands.append(yaml.safe_load(blocks("yaml")[3])["spec"]["entrypoint"])
    used = {option for text in commands for option in re.findall(r"(?<= )--?[a-z][a-z-]*", text)}
    assert {"--executor", "--ray-address", "--shard", "--offline", "-r"} <= used <= known
