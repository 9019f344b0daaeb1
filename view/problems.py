"""Find what a person should know about a store before training. Reads tables, actions, and few pictures.

Every check is a rule with a number in its words; none of them changes anything. Checks of cameras are in ``picture_checks``, of
what a store says in ``word_checks``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.index import Alignment, ImageConvention, StepFlag
from robozarr.store.opened import Store
from robozarr.view.findings import LEVELS, N_LISTED, Finding, Level, listed
from robozarr.view.picture_checks import check_cameras
from robozarr.view.rows import read_rows
from robozarr.view.word_checks import check_instructions, check_keys, check_ranges, check_splits

__all__ = ["Finding", "find_problems", "saturation"]

SATURATED_SHARE: Final = 0.05
"""A command is saturated if it is at its extreme in at least this share of steps."""
NOOP_SHARE: Final = 0.1
"""Share of no-ops from which leaving them out is worthwhile."""
LENGTH_FACTOR: Final = 2.0
"""An episode has an unusual length if it is this many times longer or shorter than the median of its task."""


def find_problems(store: Store) -> list[Finding]:
    """The results of all checks: problems first, then notices, then what is in order."""
    checks: Sequence[Callable[[Store], Iterator[Finding]]] = (
        _values, check_cameras, _duplicates, _actions, check_ranges, check_instructions, check_splits, _noops, _lengths,
        _orientation, _alignment, _success, check_keys
    )  # fmt: skip
    found = [finding for check in checks for finding in check(store)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def saturation(actions: NDArray[Any]) -> NDArray[np.float64]:
    """Share of steps at which each element of the actions has its own smallest or largest value; 0 for switches.

    An element of at most three values (a gripper's command) is a switch, not saturated; a limit of 0 is rest.

    >>> actions = np.linspace(-1, 1, 10)[:, None].repeat(2, axis=1)
    >>> actions[4:, 1] = 1
    >>> saturation(actions).round(1).tolist()
    [0.2, 0.7]
    """
    at_limit = (((actions == actions.min(axis=0)) | (actions == actions.max(axis=0))) & (actions != 0)).mean(axis=0)
    switches = np.array([len(np.unique(actions[:, i])) <= 3 for i in range(actions.shape[1])], np.bool_)
    share: NDArray[np.float64] = np.where(switches, 0.0, at_limit)
    return share


def _values(store: Store) -> Iterator[Finding]:
    bad = []
    for key in store.metadata.keys:
        if not key.ragged and not np.isfinite(store.episode_stats(key.name)["mean"]).all():
            where = ~np.isfinite(store.episode_stats(key.name)["mean"]).reshape(store.n_episodes, -1).all(axis=1)
            bad.append(f"{key.name} in episodes {listed(np.flatnonzero(where))}")
    if bad:
        yield Finding(
            level="problem", title="Values that are not finite",
            detail=f"NaN or infinity in {'; '.join(bad)}: a loss turns NaN on these → leave the episodes or the keys out",
        )  # fmt: skip
    else:
        yield Finding(level="good", title="All values are finite", detail="no NaN, no infinity in any key")


def _duplicates(store: Store) -> Iterator[Finding]:
    """Find episodes of equal length, with equal checksums of the actions and equal fingerprints of one more key."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    sums = store.checksums("actions")
    frames = [store.fingerprints(key.name) for key in store.metadata.keys if key.frame][:1]
    for episode, (start, length) in enumerate(zip(store.episodes.start.tolist(), store.episodes.length.tolist(), strict=True)):
        ends = [int(column[row]) for column in frames for row in (start, start + length - 1)]
        groups[(length, int(sums[episode]), *ends)].append(episode)
    same = [members for members in groups.values() if len(members) > 1]
    if same:
        groups_said = "; ".join(" = ".join(map(str, members)) for members in same[:N_LISTED])
        more = f"; and {len(same) - N_LISTED} groups more" if len(same) > N_LISTED else ""
        yield Finding(
            level="problem", title=f"Duplicated episodes: {sum(len(members) - 1 for members in same)}",
            detail=f"the same actions{' and first and last frames' if frames else ''} in episodes {groups_said}{more} → they "
            "count twice in training, and leak from training into validation; leave the copies out",
        )  # fmt: skip
    else:
        yield Finding(
            level="good", title="No episode occurs twice", detail=f"{store.n_episodes} episodes, all with different actions"
        )


def _actions(store: Store) -> Iterator[Finding]:
    actions = read_rows(store, "actions", range(store.n_steps))
    share = saturation(actions)
    high = np.flatnonzero(share >= SATURATED_SHARE)
    if high.size:
        elements = ", ".join(
            f"element {i} ({share[i]:.0%} of the steps at {actions[:, i].min():.3g} or {actions[:, i].max():.3g})" for i in high
        )
        yield Finding(
            level="notice", title="Saturated actions",
            detail=f"{elements}: the command was clipped there (an element is saturated if it is at its extreme in at "
            f"least {SATURATED_SHARE:.0%} of the steps) → expected with a joystick at its stop, not with converted units",
        )  # fmt: skip
    else:
        yield Finding(
            level="good", title="Actions are not saturated",
            detail=f"no element is at its extreme in {SATURATED_SHARE:.0%} of the steps or more",
        )  # fmt: skip
    constant = np.flatnonzero((actions == actions[:1]).all(axis=0))
    if constant.size:
        yield Finding(
            level="notice", title="Constant actions",
            detail=f"elements {listed(constant)} never change in the whole store: nothing can be learned for them, and "
            "dividing by their standard deviation of 0 breaks a normalisation",
        )  # fmt: skip


def _noops(store: Store) -> Iterator[Finding]:
    noop = (store.index.flags & int(StepFlag.NOOP)) != 0
    share = np.add.reduceat(noop, store.episodes.start) / store.episodes.length
    text = (
        f"{int(noop.sum()):,} of {store.n_steps:,} steps ({noop.mean():.1%}) do nothing; most in episode {int(share.argmax())} "
        f"({share.max():.0%}), by OpenVLA's rule"
    )
    if noop.mean() >= NOOP_SHARE:
        advice = "a policy that imitates them may stop for good; WindowDataset(…, exclude_flags=StepFlag.NOOP) leaves them out"
        yield Finding(level="notice", title=f"No-op steps: {noop.mean():.0%}", detail=f"{text} → {advice}")
    else:
        yield Finding(level="good", title="Few no-op steps", detail=text)


def _lengths(store: Store) -> Iterator[Finding]:
    length, unusual = store.episodes.length, []
    for task in range(store.n_tasks):
        members = np.flatnonzero(store.episodes.task == task)
        if len(members) >= 3:
            factor = length[members] / np.median(length[members])
            unusual += members[(factor >= LENGTH_FACTOR) | (factor <= 1 / LENGTH_FACTOR)].tolist()
    if unusual:
        each = [f"episode {episode} ({int(length[episode])} steps)" for episode in unusual[:N_LISTED]]
        more = f" and {len(unusual) - N_LISTED} more" if len(unusual) > N_LISTED else ""
        yield Finding(
            level="notice", title=f"Episodes of unusual length: {len(unusual)}",
            detail=f"{', '.join(each)}{more}: at least {LENGTH_FACTOR:g} times longer or shorter than the median of their "
            "task (of tasks with three episodes or more) → look at them: were they cut short, did they get lost?",
        )  # fmt: skip
    else:
        yield Finding(
            level="good", title="Episodes of a task are alike in length",
            detail=f"none is {LENGTH_FACTOR:g} times longer or shorter than its task's median (of three episodes or more)",
        )  # fmt: skip


def _orientation(store: Store) -> Iterator[Finding]:
    if not any(key.picture_axes for key in store.metadata.keys):
        return
    codes = store.episodes.image_convention
    counts = {code: int((codes == code).sum()) for code in ImageConvention}
    present = [code for code, n in counts.items() if n]
    words = {
        ImageConvention.OPENGL: "stored upside down (row 0 is the bottom row, OpenGL)",
        ImageConvention.OPENCV: "stored upright",
        ImageConvention.UNKNOWN: "of unknown orientation",
    }
    text = "; ".join(f"{words[code]} in {counts[code]} episodes" for code in present)
    if len(present) > 1 or ImageConvention.UNKNOWN in present:
        yield Finding(
            level="problem", title="Orientation of pictures differs or is not known",
            detail=f"pictures are {text} → look at the thumbnails, and flip pictures by each episode's image_convention",
        )  # fmt: skip
    else:
        shown = "here they are shown upright; " if present == [ImageConvention.OPENGL] else ""
        advice = "a pretrained vision model wants them upright: rz.Images turns them" if shown else "nothing needs to be done"
        level: Level = "notice" if shown else "good"
        yield Finding(level=level, title="Orientation of pictures", detail=f"pictures are {text}; {shown}{advice}")


def _alignment(store: Store) -> Iterator[Finding]:
    codes = store.episodes.alignment
    counts = {code: int((codes == code).sum()) for code in Alignment}
    after, before, unknown = counts[Alignment.AFTER], counts[Alignment.BEFORE], counts[Alignment.UNKNOWN]
    if unknown or (after and before):
        yield Finding(
            level="problem" if unknown else "notice", title="Alignment of observations and actions differs or is not known",
            detail=f"observations were recorded after their action in {after} episodes, before it in {before}, unknown in "
            f"{unknown} → WindowSpec(…, causal=True) pairs each observation with the action that follows it, whichever it is",
        )  # fmt: skip
    elif after:
        yield Finding(
            level="notice", title="Observations come after their action",
            detail="obs[t] shows what actions[t] led to, in all episodes (LIBERO) → the action to predict from obs[t] is "
            "actions[t + 1]; WindowSpec(…, causal=True) does that",
        )  # fmt: skip
    else:
        yield Finding(level="good", title="Observations come before their action", detail="actions[t] was chosen from obs[t]")


def _success(store: Store) -> Iterator[Finding]:
    failed = np.flatnonzero(store.episodes.success == 0)
    if failed.size:
        yield Finding(
            level="notice", title=f"Failed episodes: {failed.size}",
            detail=f"episodes {listed(failed)} did not succeed → WindowDataset(…, success=True) leaves them out",
        )  # fmt: skip
