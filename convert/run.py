"""Run a conversion from end to end: scan → plan → init → write → stats → finalise.

Each stage is a function of another module; here they are put in order and run on an executor.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from robozarr.convert.append import check_still_the_same, check_unchanged, commit, new_sources, recover, without_held
from robozarr.convert.planning.by_hand import give_by_hand
from robozarr.convert.planning.infer import Base, OnError
from robozarr.convert.planning.left_out import not_wanted
from robozarr.convert.planning.plan import Plan, make_plan
from robozarr.convert.request import ConvertReport, Wish, as_paths, destination_of, layouts_of, options_of, report_of
from robozarr.convert.resuming.journal import Begun, Journal, SourceFacts, check_same, sources_of
from robozarr.convert.resuming.states import Command, NextStep
from robozarr.convert.sources.by_hand import Instructions, checked_instruction, read_instructions
from robozarr.convert.sources.hdf5 import find_sources
from robozarr.convert.sources.layouts.record import Layout
from robozarr.convert.stages import Written, scan_sources, write_partitions, write_statistics
from robozarr.convert.verifying.base import read_base
from robozarr.convert.verifying.stored_source import check_columns, plan_of_store, stored_source
from robozarr.convert.workers.cluster import leave_if_imported, open_executor
from robozarr.convert.workers.executor import Executor
from robozarr.convert.workers.progress import Progress, SilentProgress
from robozarr.convert.writing.binding import bind_files
from robozarr.convert.writing.destination import check_apart, check_destination, clear
from robozarr.convert.writing.write import init_store, prune, remove_temporaries, write_metadata
from robozarr.schemas.errors import PlanError, Problem, SourceError, StoreError
from robozarr.schemas.index import FlagRules
from robozarr.schemas.layout import Profile
from robozarr.store.bucket import on_the_way_out
from robozarr.store.identity import find_identity
from robozarr.store.place import Place

__all__ = ["ConvertReport", "convert"]


def convert(
    sources: str | Path | Place | Sequence[str | Path],
    store: str | Path | Place,
    *,
    endpoint_url: str | None = None,
    profile: Profile | None = None,
    level: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    client: Any = None,
    overwrite: bool = False,
    append: bool = False,
    on_error: OnError = "stop",
    keys: Sequence[str] | None = None,
    layout: str | Path | Layout | Sequence[str | Path | Layout] | None = None,
    gripper: int | Literal["none"] | None = None,
    without: Sequence[str] = (),
    instruction: str | None = None,
    instructions: Instructions | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ConvertReport:
    """Convert HDF5 demonstrations, or a store into another profile, bit for bit.

    Interrupted at any point, the same call goes on where it was, and ends in the same bytes.

    Parameters
    ----------
    sources : path or sequence of paths
        Files, folders (searched for ``*.hdf5`` and ``*.h5``), or patterns; or one store of any version and profile, a folder or
        a URL: what it says of its sources goes on into the new one, as do its instructions.
    store : path or URL
        Folder that becomes the store, or a prefix of a bucket: ``s3://bucket/prefix``, ``gs://bucket/prefix``.
    endpoint_url : str, optional
        Of a service that speaks S3, for a store in a bucket. Default: what the environment says.
    profile : {"fast", "raw", "lean", "compact"}, optional
        Codec of the data. ``fast`` (Blosc-LZ4) and ``raw`` (none) are read by any Zarr v3 reader. ``lean`` and ``compact`` code
        frames against keyframes: two to four times smaller; robozarr reads them, and zarr-python where robozarr is installed.
        Default: ``fast``; of an append, the store's.
    level : int, optional
        Level of Blosc, 1 to 9; frames in ``lean`` and ``compact`` have none. Default: the profile's.
    workers : int, optional
        Dask worker processes; 0 runs in this process, for debugging. Default: the cores that this process may use.
    scheduler : str, optional
        Address of a running Dask cluster that does the work instead; its workers see sources and store under the same paths.
    client : distributed.Client, optional
        A client of a running cluster, instead of its address.
    overwrite : bool
        Replace a robozarr store that is there already.
    append : bool
        Add the sources that a store does not hold yet to it. Nothing that is there is changed but each array's last shard.
    on_error : {"stop", "skip"}
        What becomes of demos and files with problems: an error that lists all, or left out and listed in the store.
    keys : sequence of str, optional
        Keys to keep, by name or by path inside a demo; ``actions`` always is. Default: all that are found.
    layout : path, Layout, or a sequence of them, optional
        Descriptions of files that are of no known layout: TOML files as docs/sources.md explains, tried before
        the built-in ones. Of an append, the store's.
    gripper : int or "none", optional
        Element of the actions that is the gripper's command, whose sign says open or closed, for the flags of steps; "none" if
        there is none. Default: as the layout of the files says.
    without : sequence of str
        Keys to leave out, by name, by path inside a demo, or by a group's path for all below it.
    instruction : str, optional
        The instruction of every episode of `sources`, whatever the files say; the store records that it was given by hand.
    instructions : path or mapping, optional
        Instructions by file, or by file and demo: a CSV, JSON or TOML file, or a mapping. They come before `instruction`.
    dry_run : bool
        Scan and plan, write nothing.
    progress : Progress, optional
        Hears what the stages do. Default: nothing is shown.

    Returns
    -------
    ConvertReport

    Raises
    ------
    SourceError
        If sources are not found, break a rule, or changed since an unfinished conversion was begun; it lists every problem.
    PlanError
        If `keys` names what is not stored, `without` or `instructions` what no source holds, or options do not go together or
        are not those that a conversion was begun with.
    StoreError
        If the store exists and neither `overwrite` nor `append` is given, is no robozarr store, cannot be written, or another
        converter is at work on it; a BucketError if a bucket cannot be reached.
    WorkerError
        If workers cannot be had, or die over their work.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = convert("sample", f"{folder}/sample.zarr", workers=0)
    >>> report.n_tasks, report.n_episodes
    (2, 4)
    """
    began = time.monotonic()
    progress = progress or SilentProgress()
    if append and (layout is not None or gripper is not None):
        raise PlanError("--append uses the store's own layouts and gripper; leave out --layout and --gripper")
    if append and (overwrite or profile is not None or level is not None or keys is not None or without):
        raise PlanError("--append keeps the store's options; leave out --overwrite, --profile, --level, --keys and --without")
    origin = stored_source(sources, endpoint_url)
    if origin is not None:
        asked = {"--append": append, "--keys": keys is not None, "--without": bool(without), "--layout": layout is not None,
                 "--gripper": gripper is not None, "--instruction": instruction is not None,
                 "--instructions": instructions is not None, "--on-error": on_error != "stop"}  # fmt: skip
        if wrong := [option for option, given in asked.items() if given]:
            raise PlanError(f"{origin} is a store, which is converted as it is: leave out {', '.join(wrong)}")
    wish = Wish(
        store=destination_of(store, origin, endpoint_url),
        origin=origin,
        profile=profile or "fast",
        level=level,
        keys=None if keys is None else tuple(keys),
        without=tuple(without),
        instruction=None if instruction is None else checked_instruction(instruction, "--instruction"),
        instructions=() if instructions is None else tuple(read_instructions(instructions)),
        on_error=on_error,
        overwrite=overwrite,
        append=append,
        layouts=layouts_of(layout),
        gripper="layout" if gripper is None else None if gripper == "none" else gripper,
    )
    command: Command = "append" if append else "overwrite" if overwrite else "convert"
    if workers != 0 and scheduler is None and client is None:
        leave_if_imported()
    journal, step = Journal(wish.store), None
    if not dry_run:
        check_destination(journal, command)
    paths = [] if origin is not None else find_sources(as_paths(sources))
    check_apart(paths if origin is None or origin.folder is None else [origin.folder], wish.store)
    with contextlib.ExitStack() as stack:
        if not dry_run:
            stack.enter_context(journal.locked())
            stack.callback(journal.close)
            step = recover(journal, command)  # another converter may have come first
        at_work = not dry_run
        try:
            with open_executor(workers=workers, scheduler=scheduler, client=client, progress=progress) as executor:
                try:
                    plan, base, written = _convert(executor, journal, wish, paths, step, progress)
                except BaseException:  # an interrupt too: what is still at work stops before its next file, and is waited for
                    on_the_way_out(journal.withdraw)
                    raise
                at_work = False
                stack.close()  # the store is whole: a kill while the workers end leaves no lock in it
        except BaseException:  # by now no worker is left that could begin another file
            if at_work:
                with contextlib.suppress(StoreError):  # the store is another converter's meanwhile
                    journal.check()
                    remove_temporaries(wish.store)
            raise
    return report_of(wish, plan, base, written, dry_run, time.monotonic() - began)


def _convert(
    executor: Executor, journal: Journal, wish: Wish, paths: Sequence[Path], step: NextStep | None, progress: Progress
) -> tuple[Plan, Base | None, Written | None]:
    """Do what `step` says; with None, only plan."""
    if wish.origin is not None:
        return _convert_store(executor, journal, wish, wish.origin, step, progress)
    base = read_base(wish.store) if wish.append else None
    rules = FlagRules(gripper=wish.gripper) if base is None else base.metadata.flag_rules
    layouts = wish.layouts
    if base is not None:
        layouts = tuple(Layout.from_json(layout, "of the store") for layout in base.metadata.layouts)
    selected = wish.keys if base is None else base.metadata.selected_keys
    without = wish.without if base is None else not_wanted(base.metadata)
    if base is not None:
        base, paths = new_sources(base, paths)
    files = scan_sources(executor, paths, rules, selected, progress, layouts, without=without)
    files = give_by_hand(files, wish.instruction, wish.instructions, () if base is None else base.files)
    if base is not None:
        files = without_held(base, files)
        check_unchanged(base, files)
    now = Begun(kind="append" if wish.append else "convert", options=options_of(wish), sources=sources_of(files))
    begun = _to_go_on_with(journal, now, step)
    if begun is not None:
        now = replace(now, left_out=begun.left_out)

    def plan_now(left_out: Sequence[Problem]) -> Plan:
        return make_plan(
            [*(() if base is None else base.files), *files],
            profile=wish.profile if base is None else base.metadata.profile,
            level=wish.level,
            rules=rules,
            selected=selected,
            own_layouts=tuple(layout.to_json() for layout in layouts),
            on_error=wish.on_error,
            left_out=left_out,
            without=without,
            base=base,
        )

    plan = plan_now(now.left_out)
    if step is None or not files:
        return plan, base, None
    if begun is None:
        _begin(journal, wish, plan, now)
    while True:
        written = _write(executor, journal, plan, base, wish, now, progress)
        if not written.broken:
            return plan, base, written
        now = replace(now, left_out=(*now.left_out, *written.broken))
        journal.begin(now)
        n = len(written.broken)
        progress.note(f"{n} demo(s) could not be read and are left out; what follows them is written again")
        try:
            plan = plan_now(now.left_out)
        except SourceError:
            if base is not None:  # nothing is left to append: the store stays what it was, without a trace of this
                journal.clear(given_up=True)
            raise


def _convert_store(
    executor: Executor, journal: Journal, wish: Wish, origin: Place, step: NextStep | None, progress: Progress
) -> tuple[Plan, Base | None, Written | None]:
    """Convert a store instead of HDF5 files."""
    plan, old = plan_of_store(origin, wish.profile, wish.level)
    if step is None:
        return plan, None, None
    now = Begun(kind="convert", options=options_of(wish), sources={origin.url: SourceFacts(0, 0, find_identity(origin, old))})
    if _to_go_on_with(journal, now, step) is None:
        _begin(journal, wish, plan, now)
    written = _write(executor, journal, plan, None, wish, now, progress)
    return plan, None, written


def _to_go_on_with(journal: Journal, now: Begun, step: NextStep | None) -> Begun | None:
    """What an unfinished conversion began with, if `step` continues it; raises like ``check_same`` if it differs."""
    if step not in (NextStep.RESUME, NextStep.RESUME_APPEND, NextStep.RESUME_OR_REPLACE):
        return None
    try:
        begun = journal.begun()
    except StoreError:
        if step is NextStep.RESUME_OR_REPLACE:
            return None
        raise
    assert begun is not None
    if step is NextStep.RESUME_OR_REPLACE:
        return begun if (begun.options, begun.sources) == (now.options, now.sources) else None
    check_same(begun, now, journal.store)
    return begun


def _begin(journal: Journal, wish: Wish, plan: Plan, now: Begun) -> None:
    """Clear the place and record what begins. A kill at any point leaves the old store, or a place for --overwrite."""
    journal.fence(now)
    journal.clear(given_up=True)
    if not wish.append and wish.store.exists("zarr.json"):
        clear(journal.checked(wish.store), plan)
    journal.begin(now)


def _write(
    executor: Executor, journal: Journal, plan: Plan, base: Base | None, wish: Wish, begun: Begun, progress: Progress
) -> Written:
    """Write a store, or what an append adds; if demos turn out to be unreadable, it is left unfinished."""
    place, below = (wish.store, None) if base is None else (journal.stage, wish.store)
    fence, root = journal.fence(begun), journal.checked(place)
    if base is None:
        write_metadata(root, plan.metadata)
    prune(root, plan.layouts)
    sums = init_store(root, plan, below=below)
    origin = wish.origin or journal.store
    written = write_partitions(executor, journal, fence, place, plan, base, wish.on_error, progress, origin=origin)
    if written.broken:
        return written
    sums |= {**written.files, **write_statistics(executor, journal, place, plan, base, written, progress)}
    if wish.origin is not None:
        check_columns(wish.origin, place, plan)
    else:
        check_still_the_same(plan.files if base is None else plan.files[len(base.files) :])
    files = bind_files(plan.layouts, sums, None if base is None else base.metadata, wish.store)
    write_metadata(root, plan.metadata.completed().bound_to(files))
    if base is None:
        remove_temporaries(root)
        journal.clear()
    else:
        journal.ready_to_commit()
        commit(journal)
    return written
