"""What the wheel holds, that every module is type-checked, and that the converter installs alone in a clean environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from effort import some
from environments import linked_environment
from mypy.modulefinder import FindModuleCache, SearchPaths

ROOT = Path(__file__).parents[2]
FOLDERS = ("robozarr", "convert", "loader", "schemas", "store", "view")


def expected_modules() -> set[str]:
    """Every source file by the name under which it installs."""
    found = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):  # which follows no links: robozarr/loader is loader/ again
            if path.is_file() and path.suffix in (".py", ".md", ".typed", ".jinja", ".toml"):
                name = path.relative_to(ROOT / folder).as_posix()
                found.add(name if folder == "robozarr" else f"{folder}/{name}")
    return {f"robozarr/{name}" for name in found}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(out),
        str(ROOT),
    ]  # the sdist, and the wheel from it
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected_modules()
    assert {
        "robozarr/cli/__init__.py",
        "robozarr/convert/run.py",
        "robozarr/store/opened.py",
        "robozarr/schemas/FORMAT.md",
    } <= names


def test_the_index_would_take_both(built: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(built.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_sdist_holds_sources_but_no_data(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert any(name.endswith("convert/run.py") for name in names)
    assert not any(name.endswith((".hdf5", ".zarr")) for name in names)
    assert sdist.stat().st_size < 1_000_000


def test_mypy_checks_every_module() -> None:
    """What ``mypy -p robozarr`` of ``make types`` looks for, by mypy's own search: also behind the links."""
    found = FindModuleCache(SearchPaths((str(ROOT),), (), (), ()), None, None).find_modules_recursive("robozarr")
    names = {Path(source.path).relative_to(ROOT).as_posix() for source in found if source.path}
    assert names == {name for name in expected_modules() if name.endswith(".py")}


def installed(python: str | Path, *modules: str) -> str:
    """Which of the modules an environment has, as a printed list."""
    probe = f"import importlib.util as u; print([n for n in {modules!r} if u.find_spec(n)])"
    return subprocess.run([str(python), "-c", probe], capture_output=True, text=True, check=True).stdout.strip()


def wheel_environment(built: Path, extra: str, venv: Path) -> Path:
    """An environment with the wheel, and of all packages here only those that the extra asks for."""
    (wheel,) = built.glob("*.whl")
    return linked_environment(wheel, extra, venv)


@pytest.mark.slow(reason="pip installs forty packages")
def test_the_converter_installs_alone_and_works(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [
        str(python),
        "-m",
        "pip",
        "install",
        "-q",
        "--no-compile",
        "--disable-pip-version-check",
        "-c",
        str(ROOT / "constraints.txt"),
    ]
    subprocess.run([*pip, f"{wheel}[convert]"], check=True)
    check_that_it_converts(tmp_path / "venv", tmp_path)


def check_that_it_converts(venv: Path, folder: Path) -> None:
    """Convert and verify in an environment that has nothing of the loader's or the view's."""
    robozarr = str(venv / "bin" / "robozarr")
    subprocess.run(
        [robozarr, "convert", str(ROOT / "sample"), "--store", "a.zarr", "-w", str(some(2, 0))], check=True, cwd=folder
    )
    subprocess.run([robozarr, "verify", "a.zarr", "--source", str(ROOT / "sample"), "-w", "0"], check=True, cwd=folder)
    assert installed(venv / "bin" / "python", "torch", "numba", "blosc2", "matplotlib", "pandas") == "[]"


@pytest.mark.slow(reason="starts new Pythons, each of which imports everything")
def test_the_convert_extra_is_enough_to_convert(built: Path, tmp_path: Path) -> None:
    check_that_it_converts(wheel_environment(built, "convert", tmp_path / "venv"), tmp_path)


def test_the_wheel_alone_opens_a_store(built: Path, sample_store: Path, tmp_path: Path) -> None:
    python = wheel_environment(built, "", tmp_path / "venv") / "bin" / "python"
    probe = f"import robozarr as rz; print(rz.open_store({str(sample_store)!r}).array('actions')[:2].shape)"
    done = subprocess.run([str(python), "-c", probe], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "(2, 7)"
    assert installed(python, "torch", "numba", "dask", "h5py", "rich", "typer", "pandas") == "[]"


@pytest.mark.slow(reason="a notebook in an environment of its own")
def test_view_installs_alone_and_is_enough_to_look(built: Path, sample_store: Path, tmp_path: Path) -> None:
    venv = wheel_environment(built, "view", tmp_path / "venv")
    python, robozarr, store = str(venv / "bin" / "python"), str(venv / "bin" / "robozarr"), str(sample_store)
    for arguments in (["info", store], ["coverage", store, "-o", "a.png"], ["report", store, "-o", "a.html"]):
        subprocess.run([robozarr, *arguments], check=True, cwd=tmp_path, capture_output=True)
    assert installed(python, "torch", "numba", "blosc2", "dask", "h5py") == "[]"
    # the notebook, in a kernel of that environment
    notebook = json.loads((ROOT / "notebooks" / "inspect.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    kernel = {
        "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "view",
        "language": "python",
    }
    (tmp_path / "kernels" / "view").mkdir(parents=True)
    (tmp_path / "kernels" / "view" / "kernel.json").write_text(json.dumps(kernel))
    run = (
        "import nbformat, sys; from nbclient import NotebookClient; notebook = nbformat.read(sys.argv[1], 4)\n"
        "NotebookClient(notebook, kernel_name='view', timeout=120).execute()\n"
        "print(sum(bool(cell.get('outputs')) for cell in notebook.cells))"
    )
    command = [sys.executable, "-c", run, str(ROOT / "notebooks" / "inspect.ipynb")]
    environment = {**os.environ, "JUPYTER_PATH": str(tmp_path), "ROBOZARR_STORE": store}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(cells)
