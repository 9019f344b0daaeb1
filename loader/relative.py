"""Make actions relative to the state at the anchor: the pairs of keys, and the elements that are subtracted. Imports no torch.

As openpi's ``DeltaActions`` (src/openpi/transforms.py) and LeRobot's relative actions: the state at the anchor is taken from
every action of the chunk, so that each says where to go from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robozarr.loader.batch import WindowReader
from robozarr.schemas.errors import WindowError

__all__ = ["Relative"]


@dataclass(frozen=True, slots=True)
class Relative:
    """Keys that are served relative to another key's value at the anchor: ``Relative({"actions": "joint_states"})``.

    >>> Relative({"actions": "joint_states"}, elements={"actions": range(7)}).of("actions")
    ('joint_states', (0, 1, 2, 3, 4, 5, 6))
    """

    keys: Mapping[str, str]
    """Key → what is taken from it: element i from element i."""
    elements: Mapping[str, Sequence[int]] | None = None
    """Key → its elements that are relative; the others stay as they are, such as a gripper's command. Default: all, where both
    keys have equally many."""

    def __post_init__(self) -> None:
        if not isinstance(self.keys, Mapping) or not self.keys:
            raise WindowError(
                f'relative · keys: a mapping of a key to the state it is relative to; got {self.keys!r} → pass {{"actions": '
                '"joint_states"}'
            )
        if unknown := [name for name in self.elements or {} if name not in self.keys]:
            raise WindowError(f"relative · elements: of {', '.join(self.keys)}; got {', '.join(unknown)} → name these keys")

    def of(self, name: str) -> tuple[str, tuple[int, ...] | None] | None:
        """The key that a key is relative to, and the elements (None: all); None if it is not relative."""
        if name not in self.keys:
            return None
        elements = (self.elements or {}).get(name)
        return self.keys[name], None if elements is None else tuple(int(element) for element in elements)

    def check(self, reader: WindowReader) -> None:
        """Refuse keys and elements that are not there, and states that the window does not have at its anchor.

        Raises
        ------
        WindowError
            The text says which.
        """
        offsets, stored = reader.spec.offsets, reader.store.keys
        for name in self.keys:
            state, elements = self.of(name) or ("", None)
            if name not in offsets or state not in offsets:
                raise WindowError(
                    f"relative · {name}: both keys are in the window, which has {', '.join(offsets)}; got {name} and {state} → "
                    "add them to the window"
                )
            if 0 not in offsets[state] or reader.spec.shifted_keys(reader.store.metadata) & {state}:
                raise WindowError(
                    f"relative · {name}: {state} at step t, offset 0; the window has it at {list(offsets[state])} → add 0"
                )
            shapes = [stored[key].shape for key in (name, state)]
            if any(len(shape) != 1 or stored[key].frame for shape, key in zip(shapes, (name, state), strict=True)):
                raise WindowError(
                    f"relative · {name}: vectors; {name} is {list(shapes[0])}, {state} {list(shapes[1])} → take others"
                )
            widths = [shape[0] for shape in shapes]
            if elements is None and widths[0] != widths[1]:
                raise WindowError(
                    f"relative · {name}: as many elements as {state}; it has {widths[0]}, {state} {widths[1]} → say which are "
                    f'relative: elements={{"{name}": range({min(widths)})}}'
                )
            if bad := [element for element in elements or () if not 0 <= element < min(widths)]:
                raise WindowError(
                    f"relative · {name}: elements in [0, {min(widths)}), which {name} and {state} have; got {bad} → name those"
                )

    def mask(self, name: str, width: int) -> Any:
        """Float64 [width]: 1 where a key is relative, 0 elsewhere."""
        _, elements = self.of(name) or ("", ())
        mask = np.zeros(width)
        mask[list(range(width) if elements is None else elements)] = 1
        return mask
