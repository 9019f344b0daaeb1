"""What is trained and rolled out: the rows of the table. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tail.schemes import Scheme

__all__ = ["DEFAULT", "FULL", "MORE", "QUICK", "PolicyPlan", "Row", "Size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPlan:
    """A policy, but for its seed."""

    scheme: Scheme
    chunk: int = 64
    mask: bool = True
    """False: padded actions count in the loss."""
    n_demos: int | None = None
    """None: all that were recorded for training."""
    exclude_noops: bool = False
    repeat: int = 1
    """How often an epoch serves key moments."""
    causal: bool = True
    """False: actions beside the observation they led to, as LIBERO's files have them."""

    @property
    def name(self) -> str:
        """Short and unique: part of a file's name.

        >>> PolicyPlan(scheme="C", mask=False).name, PolicyPlan(scheme="A", chunk=16, n_demos=10).name
        ('C64-unmasked', 'A16-10demos')
        """
        parts = [f"{self.scheme}{self.chunk}"]
        parts += ["unmasked"] * (not self.mask) + [f"{self.n_demos}demos"] * (self.n_demos is not None)
        parts += ["nonoops"] * self.exclude_noops + [f"repeat{self.repeat}"] * (self.repeat > 1)
        return "-".join(parts + ["asrecorded"] * (not self.causal))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table: a policy, and how many actions of a chunk are executed before the next chunk."""

    policy: PolicyPlan
    executed: int = 16

    @property
    def name(self) -> str:
        """Short and unique."""
        return f"{self.policy.name}/{self.executed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything."""

    name: str
    rows: tuple[Row, ...]
    n_demos: int = 50
    n_held_out: int = 10
    """Demonstrations that no policy is trained on."""
    n_seeds: int = 3
    n_states: int = 30
    """Initial states that every policy begins from."""
    n_steps: int = 4000
    """Gradient steps: equally many for all."""
    batch_size: int = 64
    max_steps: int = 250
    """Control steps of a rollout: 12.5 s."""

    @property
    def policies(self) -> tuple[PolicyPlan, ...]:
        """Each once, in the order of the rows."""
        return tuple(dict.fromkeys(row.policy for row in self.rows))


def _row(scheme: Scheme, chunk: int = 64, executed: int = 16, **more: bool | int) -> Row:
    return Row(policy=PolicyPlan(scheme=scheme, chunk=chunk, **more), executed=executed)  # type: ignore[arg-type]


FOUR: Final = tuple(_row(scheme) for scheme in ("A", "B", "C", "D"))
DEFAULT: Final = Size(
    name="default",
    rows=(
        *FOUR, _row("C", mask=False), _row("A", 16), _row("C", 16), _row("A", executed=64), _row("C", executed=64),
    ),
)  # fmt: skip
MORE: Final = (
    _row("A", 32), _row("C", 32), _row("A", executed=8), _row("C", executed=8), _row("A", n_demos=10),
    _row("C", n_demos=10), _row("A", exclude_noops=True), _row("C", exclude_noops=True), _row("C", repeat=3),
    _row("A", repeat=3), _row("C", causal=False),
)  # fmt: skip
FULL: Final = Size(name="full", rows=(*DEFAULT.rows, *MORE))
QUICK: Final = Size(
    name="quick", rows=(_row("A"), _row("C")), n_demos=20, n_held_out=4, n_seeds=1, n_states=10, n_steps=1500,
)  # fmt: skip
