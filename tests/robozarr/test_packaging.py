"""The image, the compose file and the workflow say what they should, in one place each. Nothing is built here."""

from __future__ import annotations

import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from distributed.cli.dask_scheduler import main as dask_scheduler
from distributed.cli.dask_worker import main as dask_worker

import robozarr
from robozarr.cli import app

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in project()["project"]
    assert project()["project"]["dynamic"] == ["version"]
    found = [
        path.relative_to(ROOT).as_posix()
        for pattern in ("*", "robozarr/*.py", "convert/*.py", ".github/workflows/*")
        for path in ROOT.glob(pattern)
        if path.is_file()
        and path.suffix != ".txt"
        and path.name != "CHANGELOG.md"  # which names versions of other things, and old ones
        if re.search(rf"(?<!robomimic[=-])(?<!==)\b{re.escape(robozarr.__version__)}\b", path.read_text())
    ]
    assert found == ["robozarr/version.py"]


def test_the_image_has_two_stages_a_user_and_labels() -> None:
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", DOCKERFILE, re.M)
    assert stages == [("python:3.11-slim-bookworm", "build"), ("python:3.11-slim-bookworm", "")]
    final = DOCKERFILE[DOCKERFILE.rindex("FROM ") :]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", final, re.M)
    assert 'ENTRYPOINT ["robozarr"]' in final
    assert not re.search(r"^RUN|apt-get|pip", final, re.M)
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", final))
    assert labels == {"title", "description", "licenses", "source", "version", "revision"}


def test_the_image_holds_no_torch() -> None:
    match = re.search(r'^ARG EXTRAS="(.*)"$', DOCKERFILE, re.M)
    assert match is not None
    extras = match[1].split()
    assert extras == ["convert", "dashboard", "s3"]
    optional = project()["project"]["optional-dependencies"]
    needs = [need for extra in extras for need in optional[extra]]
    assert {re.match(r"[\w-]+", need)[0] for need in needs}.isdisjoint({"torch", "numba", "robozarr"})  # type: ignore[index]


def test_nothing_reaches_the_build_but_what_the_wheel_is_made_of() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert let_in == {"CHANGELOG.md", "LICENSE", "README.md", "constraints.txt", "pyproject.toml"} | {
        "robozarr", "convert", "loader", "schemas", "store", "view"
    }  # fmt: skip
    assert not any(fnmatch(name, pattern) for name in (".git", ".venv", "tests", "sample") for pattern in let_in)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return found


def test_compose_starts_a_scheduler_workers_and_the_converter(services: dict[str, Any]) -> None:
    assert set(services) == {"scheduler", "worker", "converter"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["image"] == "${ROBOZARR_IMAGE:-robozarr}"
    assert services["worker"]["volumes"] == services["converter"]["volumes"]
    assert services["worker"]["deploy"] == {"replicas": 2}
    (port,) = services["scheduler"]["ports"]
    assert port.startswith("127.0.0.1:"), "the dashboard has no password"


def test_the_commands_of_compose_are_understood(services: dict[str, Any]) -> None:
    for name, main in (("scheduler", dask_scheduler), ("worker", dask_worker)):
        program, role, *arguments = services[name]["entrypoint"]
        assert (program, role) == ("dask", name)
        main.make_context(role, list(arguments))  # raises for an option that there is not
    command = [str(part).replace("${ROBOZARR_STORE:-libero.zarr}", "libero.zarr") for part in services["converter"]["command"]]
    assert dry_parse(command)["scheduler"] == "tcp://scheduler:8786"


def dry_parse(command: list[str]) -> dict[str, Any]:
    """What Typer makes of a command line, without running it."""
    import typer

    group: Any = typer.main.get_command(app)
    context = group.make_context("robozarr", list(command))
    name, sub, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    parameters: dict[str, Any] = sub.make_context(name, rest, parent=context).params
    return parameters


DOCUMENTS = [
    "README.md",
    *(f"docs/{name}.md" for name in ("container", "cluster", "install", "instructions", "object-stores")),
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_the_documents_are_understood(document: str) -> None:
    text = re.sub(r" *\\\n *", " ", (ROOT / document).read_text())
    lines = [
        line.partition("#")[0].strip()
        for block in re.findall(r"^```(?:bash)?\n(.*?)^```", text, re.M | re.S)
        for line in block.splitlines()
    ]
    n_checked = 0
    for line in lines:
        if not line.startswith(("robozarr ", "docker run ")):
            continue
        words = shlex.split(line)
        at = words.index("robozarr")
        dry_parse(words[at + 1 :])
        n_checked += 1
    assert n_checked > 0


def test_the_workflow_tests_packs_and_builds_the_image() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    runs = {name: [step.get("run", "") for step in job["steps"]] for name, job in workflow["jobs"].items()}
    assert ".ci/run" in runs["test"]
    assert "make dist" in runs["dist"]
    assert any(run.startswith("make image ") for run in runs["image"])
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    used = {word for job in runs.values() for run in job for word in re.findall(r"\bmake ([\w-]+)", run)}
    named = {
        word
        for pattern in ("*.md", "docs/**/*.md", "sample/*.md")
        for path in ROOT.glob(pattern)
        for word in re.findall(r"(?:`|^)make ([a-z][\w-]*)", path.read_text(), re.M)
    }
    assert len(named) > 10
    assert used | named <= targets


@pytest.mark.parametrize("form", ["bug.yml", "files.yml"])
def test_an_issue_form_has_no_field_that_is_half_a_sentence(form: str) -> None:
    """A comma inside braces ends a value in YAML."""
    body = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE" / form).read_text())["body"]
    assert {name for field in body for name in field["attributes"]} <= {"label", "description", "render"}
