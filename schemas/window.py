"""Define a window: offsets per key, padding, the causal pairing; imports no I/O and no loader.

A window has an anchor, a step t of an episode, and holds the rows t + offset of each key. A row outside the episode is
padding, and a mask says so. ``loader/windows/table.py`` enumerates windows and computes rows by these rules.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import Alignment, StepFlag
from robozarr.schemas.metadata import StoreMetadata
from robozarr.schemas.presets import Padding, Presets
from robozarr.schemas.source import Role

__all__ = ["ACTION_FLAGS", "SHIFTED_ROLES", "KeyWindow", "Padding", "WindowSpec"]

SHIFTED_ROLES: Final[tuple[Role, ...]] = ("action", "outcome")
"""Roles whose offsets, in a causal window, count from the first action after the anchor's observation."""
ACTION_FLAGS: Final = StepFlag.NOOP | StepFlag.KEY_MOMENT
"""Flags about a step's action: a causal window looks them up at its first action, not at its anchor."""

OFFSET_MAX: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class KeyWindow:
    """One key of a window."""

    name: str
    """Name of the key in the store."""
    offsets: tuple[int, ...]
    """Steps from the anchor (step t), in the order of the batch."""
    padding: Padding


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class WindowSpec(Presets):
    """The steps of each key that a window holds, relative to step t, its anchor.

    Parameters
    ----------
    offsets : mapping of key to integers
        Any integers in any order: lists, ranges, steps (``range(0, 32, 4)``). The order is the batch's. Duplicates are
        allowed, they repeat a row: a model of two frames is fed one frame by ``[0, 0]``. A set has no order: refused.
    padding : "edge", "zero", or mapping of key to either
        Keys that a mapping leaves out get "edge", which is what RDT, robomimic and diffusion policy do.
    causal : bool
        False: rows are t + offset, as recorded. True: offsets of actions and outcomes (by the key's role) count from the
        first action chosen after the anchor's observation was seen. Where an episode was recorded BEFORE, that is
        actions[t], and nothing differs; where it was recorded AFTER (LIBERO), actions[t] led to obs[t], and it is
        actions[t + 1]. Anchors none of whose actions lies inside the episode, such as T-1, are left out and counted.
    assume_alignment : Alignment, optional
        Taken for episodes whose alignment is UNKNOWN, which a causal window refuses otherwise. Never overrides what is
        recorded, and is part of the specification, so that it is recorded with the run.

    Notes
    -----
    The presets ``rdt``, ``diffusion_policy``, ``act``, ``openvla`` and ``robomimic`` are those of ``Presets``.
    Specifications are equal if they give the same batches; the order of the keys does not count.

    Examples
    --------
    >>> spec = WindowSpec({"agentview_rgb": [-1, 0], "actions": range(64)}, padding={"actions": "zero"})
    >>> spec
    WindowSpec({'agentview_rgb': [-1, 0], 'actions': range(0, 64)}, padding={'actions': 'zero'})
    >>> WindowSpec.from_json(spec.to_json()) == spec
    True
    """

    keys: tuple[KeyWindow, ...]
    """Keys in the given order."""
    causal: bool
    assume_alignment: Alignment | None

    def __init__(
        self,
        offsets: Mapping[str, Iterable[int]],
        *,
        padding: Padding | Mapping[str, Padding] = "edge",
        causal: bool = False,
        assume_alignment: Alignment | None = None,
    ) -> None:
        if not isinstance(offsets, Mapping) or not offsets or not all(isinstance(name, str) for name in offsets):
            raise WindowError(
                "window · offsets: a mapping from the name of a key to its offsets, with at least one key; "
                f'got {offsets!r} → pass, for example, {{"agentview_rgb": [-1, 0], "actions": range(64)}}'
            )
        per_key = padding if isinstance(padding, Mapping) else dict.fromkeys(offsets, padding)
        if unknown := [name for name in per_key if name not in offsets]:
            raise WindowError(
                f"window · padding: for keys of the window, which are {', '.join(offsets)}; "
                f"got {', '.join(map(str, unknown))} → name the key as in the offsets"
            )
        if bad := {name: value for name, value in per_key.items() if value not in ("edge", "zero")}:
            raise WindowError(f'window · padding: "edge" or "zero"; got {bad} → pass one of these, or one for each key')
        if not isinstance(causal, bool):
            raise WindowError(f"window · causal: True or False; got {causal!r} → pass one of these")
        if assume_alignment is not None and (not causal or assume_alignment not in (Alignment.BEFORE, Alignment.AFTER)):
            raise WindowError(
                "window · assume_alignment: Alignment.BEFORE or Alignment.AFTER, together with causal=True; "
                f"got {assume_alignment!r} and causal={causal} → pass both, or neither"
            )
        keys = tuple(KeyWindow(name, _as_offsets(name, of), per_key.get(name, "edge")) for name, of in offsets.items())
        object.__setattr__(self, "keys", keys)
        object.__setattr__(self, "causal", causal)
        object.__setattr__(self, "assume_alignment", None if assume_alignment is None else Alignment(assume_alignment))

    @property
    def offsets(self) -> dict[str, tuple[int, ...]]:
        """Offsets by key, as a copy."""
        return {key.name: key.offsets for key in self.keys}

    @property
    def padding(self) -> dict[str, Padding]:
        """Padding by key, as a copy."""
        return {key.name: key.padding for key in self.keys}

    def _identity(self) -> tuple[frozenset[KeyWindow], bool, Alignment | None]:
        return frozenset(self.keys), self.causal, self.assume_alignment

    def __eq__(self, other: object) -> bool:
        return self._identity() == other._identity() if isinstance(other, WindowSpec) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        options = [", ".join(f"{key.name!r}: {_short(key.offsets)}" for key in self.keys).join("{}")]
        if zero := {key.name: key.padding for key in self.keys if key.padding != "edge"}:
            options.append(f"padding={zero}")
        options += ["causal=True"] * self.causal
        options += [f"assume_alignment=Alignment.{self.assume_alignment.name}"] if self.assume_alignment is not None else []
        return f"WindowSpec({', '.join(options)})"

    def to_json(self) -> dict[str, Any]:
        """The specification as JSON values, to record with a run."""
        return {
            "version": 1,
            "offsets": {key.name: list(key.offsets) for key in self.keys},
            "padding": dict(self.padding),
            "causal": self.causal,
            "assume_alignment": None if self.assume_alignment is None else self.assume_alignment.name.lower(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned.

        Raises
        ------
        WindowError
            If the version or a field is not known, a field is missing, or its value is refused by the constructor.
        """
        names = {"version", "offsets", "padding", "causal", "assume_alignment"}
        known = isinstance(value, Mapping) and set(value) == names and value["version"] == 1
        if not known or value["assume_alignment"] not in (None, "before", "after"):
            raise WindowError(
                f'window · JSON: version 1 with {", ".join(sorted(names))} (null, "before" or "after"); got {value!r} '
                "→ use the robozarr that saved it"
            )
        name = value["assume_alignment"]
        assumed = None if name is None else Alignment[name.upper()]
        return cls(value["offsets"], padding=value["padding"], causal=value["causal"], assume_alignment=assumed)

    def validate(self, metadata: StoreMetadata) -> None:
        """Check that a store can serve the window.

        Raises
        ------
        WindowError
            If the store lacks a key (the text lists those it has), a key is ragged, or a causal window has no key that
            causality concerns. One error names them all.
        """
        stored = {key.name: key for key in metadata.keys}
        can_serve = [key.name for key in metadata.keys if not key.ragged]
        problems = []
        for name in self.offsets:
            if name not in stored:
                close = difflib.get_close_matches(name, can_serve, n=1)
                problems.append(
                    f"window · {name}: is not a key of the store, which has {', '.join(can_serve)} → "
                    + (f"did you mean {close[0]!r}?" if close else "take one of these, or convert with this key")
                )
            elif stored[name].ragged:
                problems.append(
                    f"window · {name}: a key whose steps all have one width; this one is ragged (its width differs between "
                    f"episodes), so its windows cannot be stacked into a batch → read it by store.ragged({name!r})"
                )
        if self.causal and not problems and not self.shifted_keys(metadata):
            problems.append(
                f"window · causal: the window holds a key of role {' or '.join(SHIFTED_ROLES)}; it has "
                f"{', '.join(self.offsets)} → add the actions, or leave causal out"
            )
        if problems:
            raise WindowError("\n".join(problems))

    def shifted_keys(self, metadata: StoreMetadata) -> frozenset[str]:
        """Keys whose offsets count from the first action after the observation; none if the window is not causal."""
        roles = {key.name: key.role for key in metadata.keys}
        return frozenset(name for name in self.offsets if self.causal and roles.get(name) in SHIFTED_ROLES)

    def deciding_offsets(self, metadata: StoreMetadata) -> tuple[int, ...]:
        """Offsets of which at least one, shifted, must lie inside the episode; empty if the window is not causal.

        Those of the actions; of the outcomes in a window without actions. Ascending, each once.
        """
        roles = {key.name: key.role for key in metadata.keys}
        for role in SHIFTED_ROLES if self.causal else ():
            if offsets := {offset for key in self.keys if roles.get(key.name) == role for offset in key.offsets}:
                return tuple(sorted(offsets))
        return ()

    def shifts(self, alignment: NDArray[np.integer[Any]], selected: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Steps from an anchor to the first action chosen after its observation was seen, per episode.

        Parameters
        ----------
        alignment : int [episode]
            Codes of ``Alignment``, as recorded.
        selected : bool [episode], optional
            Episodes of which windows are made; the others may be of unknown alignment. Default: all.

        Returns
        -------
        int64 [episode]
            1 where causal and recorded AFTER, else 0.

        Raises
        ------
        WindowError
            If the alignment of a selected episode is not known and none is assumed; the text names the episodes.

        Examples
        --------
        >>> WindowSpec({"actions": range(8)}, causal=True).shifts(np.array([Alignment.BEFORE, Alignment.AFTER])).tolist()
        [0, 1]
        """
        codes = np.asarray(alignment)
        if not self.causal:
            return np.zeros(codes.shape, np.int64)
        unknown = ~np.isin(codes, (Alignment.BEFORE, Alignment.AFTER))
        at_fault = np.flatnonzero(unknown if selected is None else unknown & selected)
        if at_fault.size and self.assume_alignment is None:
            named = ", ".join(map(str, at_fault[:8])) + (", …" if at_fault.size > 8 else "")
            raise WindowError(
                f"window · causal: the alignment of every selected episode is known; it is not of {at_fault.size} of "
                f"{codes.size}: {named} → pass assume_alignment=Alignment.AFTER (LIBERO's own files) or Alignment.BEFORE "
                "(OpenVLA's, robomimic's), or leave these episodes out by a filter"
            )
        assumed = Alignment.UNKNOWN if self.assume_alignment is None else self.assume_alignment
        shifts: NDArray[np.int64] = (np.where(unknown, assumed, codes) == Alignment.AFTER).astype(np.int64)
        return shifts


def _as_offsets(name: str, offsets: Iterable[int]) -> tuple[int, ...]:
    listed = isinstance(offsets, Iterable) and getattr(offsets, "ndim", 1) == 1
    values = list(offsets) if listed and not isinstance(offsets, str | bytes | Set | Mapping) else []
    integers = [int(v) for v in values if isinstance(v, int | np.integer) and not isinstance(v, bool) and abs(v) <= OFFSET_MAX]
    if not values or len(integers) < len(values):
        raise WindowError(
            f"window · {name}: offsets are at least one integer, in a list or range, within ±{OFFSET_MAX}; got {offsets!r} "
            "→ pass [0] for step t of the window, range(64) for 64 steps from t on"
        )
    return tuple(integers)


def _short(offsets: tuple[int, ...]) -> str:
    """Offsets as a list, or as a range if that is shorter."""
    step = offsets[1] - offsets[0] if len(offsets) > 3 else 0
    as_range = range(offsets[0], offsets[-1] + (1 if step > 0 else -1), step) if step else range(0)
    return repr(as_range if tuple(as_range) == offsets else list(offsets))
