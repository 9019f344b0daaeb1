"""Environments for tests, made in a second and offline: a wheel, and links to exactly the packages that it asks for."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def linked_environment(wheel: Path, extra: str, venv: Path) -> Path:
    """Make `venv` with the wheel and links to the installed packages that ``wheel[extra]`` needs, and to no others."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(venv), "platbase": str(venv)}))
    with zipfile.ZipFile(wheel) as archive:  # what pip does, which takes as long as all the rest; a slow test calls pip
        archive.extractall(site)
    own = Distribution.at(next(site.glob("robozarr-*.dist-info")))
    for script in own.entry_points.select(group="console_scripts"):
        place = venv / "bin" / script.name
        place.write_text(
            f"#!{venv}/bin/python\nimport sys\nfrom {script.module} import {script.attr}\nsys.exit({script.attr}())\n"
        )
        place.chmod(0o755)
    for found in needed_by(own, extra).values():
        link(found, site)
    return venv


def needed_by(package: Distribution, extra: str) -> dict[str, Distribution]:
    """Every package that `package` needs with an extra, directly or not; each must be installed here."""
    found: dict[str, Distribution] = {}
    waiting = [(package, frozenset({extra} if extra else ()))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        one, extras = waiting.pop()
        for line in one.requires or ():
            wanted = Requirement(line)
            if wanted.marker and not any(wanted.marker.evaluate({"extra": name}) for name in (extras or {""})):
                continue
            name, asked = canonicalize_name(wanted.name), frozenset(wanted.extras)
            if (name, asked) in seen:
                continue
            seen.add((name, asked))
            there = distribution(wanted.name)
            assert wanted.specifier.contains(there.version, prereleases=True), f"{line}: {there.version} is installed"
            if name != canonicalize_name(package.metadata["Name"]):
                found[name] = there
            waiting.append((there if name in found else package, asked))
    return found


def link(package: Distribution, site: Path) -> None:
    """Link what a package has at the top of its site-packages: modules, folders, its metadata."""
    for file in package.files or ():
        top = file.parts[0]
        if top in ("..", "__pycache__") or top.endswith(".pth"):
            continue
        target = Path(str(package.locate_file(top)))
        place = site / top
        if place.exists():
            continue  # a namespace that two packages share is linked once, whole
        place.symlink_to(target.resolve())
