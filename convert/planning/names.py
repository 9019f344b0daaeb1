"""Check the names that the user gives: keys to keep, and what to leave out. Pure; no I/O."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from robozarr.convert.planning.infer import Inferred
from robozarr.convert.sources.videos import is_video_file
from robozarr.schemas.errors import PlanError
from robozarr.schemas.metadata import NOT_WANTED
from robozarr.schemas.source import REQUIRED_KEYS, is_called, key_name

__all__ = ["check_names"]


def check_names(inferred: Inferred, selected: tuple[str, ...] | None, without: tuple[str, ...]) -> None:
    """Refuse `selected` names that are not stored, and `without` names that no source holds.

    Raises
    ------
    PlanError
        Saying of each name why it is not stored, or what the sources hold.
    """
    if both := sorted({*without} & {*(selected or ())}):
        raise PlanError(f"--without and --keys both name {', '.join(both)}")
    stored = {name for key in inferred.keys for name in (key.source, key.name)}
    reasons = {path: why for file in inferred.files for path, n, why in file.not_stored if n}
    reasons |= {path: why for (_, path), why in inferred.left_out_keys.items()} | inferred.nameless
    called = dict(pair for file in inferred.files for pair in file.called)
    known = {key.name for key in inferred.keys} | {called.get(path) or key_name(path) for path in {*reasons, *inferred.repeats}}
    problems = []
    for name in selected or ():
        if name in stored:
            continue
        names = {path: (path, key_name(path), path.replace("/", "."), called.get(path)) for path in reasons}
        whys = {why for path, why in reasons.items() if name in names[path]}
        if whys:
            problems.append(f"{name} cannot be stored: {'; '.join(sorted(whys))}")
    missing = [name for name in selected or () if name not in stored | known | reasons.keys()]
    if missing:
        problems.append(f"no source holds {', '.join(missing)}{_near(missing, known)}; they hold {', '.join(sorted(known))}")
    if problems:
        raise PlanError(f"--keys: {'; '.join(problems)}")
    if required := [name for name in without if name in REQUIRED_KEYS]:
        raise PlanError(f"--without: {', '.join(required)} cannot be left out: it gives a demo its length")
    left_out = [path for path, why in reasons.items() if why == NOT_WANTED]
    keys = [name for name in without if not is_video_file(name)]  # videos beside a source may be gone when it is verified
    if missing := [name for name in keys if not any(is_called(path, [name], called.get(path, "")) for path in left_out)]:
        raise PlanError(
            f"--without: no source holds {', '.join(missing)}{_near(missing, known)}; they hold {', '.join(sorted(known))}"
        )


def _near(missing: Iterable[str], known: Iterable[str]) -> str:
    """Names that a misspelt one may mean."""
    near = [match for name in missing for match in difflib.get_close_matches(name, known, n=1)]
    return f" (did you mean {', '.join(near)}?)" if near else ""
