"""Language embeddings for RDT: made once per instruction by the user's encoder, kept as files or arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from robozarr.schemas.errors import StoreError, WindowError
from robozarr.store.embedding import instruction_of_task
from robozarr.store.opened import Store
from robozarr.store.whole_file import whole_file

__all__ = ["LangEmbed", "lang_embeds_of", "pad_lang_embeds", "write_lang_embeds"]

LangEmbed: TypeAlias = Mapping[str, Any] | Sequence[Any] | NDArray[Any]
"""A path or an array [n_tokens, d] for each task: in the order of the task table, or by the task's instruction or name."""


def write_lang_embeds(store: Store, folder: str | Path, encode: Callable[[str], Any], *, overwrite: bool = False) -> list[Path]:
    """Encode every instruction once, into files in RDT's form: ``torch.load(path)`` is a tensor [n_tokens, d].

    Parameters
    ----------
    store : Store
    folder : path
        Made if need be; one file per task, ``<suite>.<name>.pt``, and ``<suite>.<name>.<code>.pt`` where tasks share a name.
    encode : function of an instruction
        Returns a tensor or array [n_tokens, d], or [1, n_tokens, d] as RDT's scripts/encode_lang.py makes it.
    overwrite : bool
        Encode anew what is there already.

    Returns
    -------
    list of path
        By task, for ``RDTDataset(lang_embed=…)``.

    Raises
    ------
    WindowError
        If a task has no instruction: there is nothing to encode.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    encoded: dict[str, Any] = {}
    for name, text in zip(_file_names(store), instruction_of_task(store), strict=True):
        path = folder / name
        paths.append(path)
        if path.exists() and not overwrite:
            continue
        if not text:
            raise WindowError(
                f"rdt · lang_embed: an instruction to encode; task {len(paths) - 1} of {store.path} has none → convert with "
                "--instruction or --instructions"
            )
        if text not in encoded:
            encoded[text] = encode(text)
        embed = torch.as_tensor(encoded[text]).detach().cpu()
        if embed.dim() == 3 and len(embed) == 1:
            embed = embed[0]
        _check(embed.shape, name)
        with whole_file(path) as partial:
            torch.save(embed.clone(), partial)
    return paths


def _file_names(store: Store) -> list[str]:
    """A file name for each task, from suite and name, and from the instruction where tasks share these."""
    tasks = store.tasks
    names = [f"{suite}.{name}" for suite, name in zip(tasks.suite, tasks.name, strict=True)]
    codes = [hashlib.blake2b(text.encode(), digest_size=4).hexdigest() for text in instruction_of_task(store)]
    return [f"{name}.pt" if names.count(name) == 1 else f"{name}.{code}.pt" for name, code in zip(names, codes, strict=True)]


def lang_embeds_of(store: Store, given: LangEmbed) -> list[str | torch.Tensor]:
    """One embedding per task, checked: paths as text, arrays as tensors.

    Raises
    ------
    WindowError
        If a task has none; the text names it.
    """
    tasks = store.tasks
    if isinstance(given, Mapping):
        rows = []
        for names in zip(tasks.instruction, tasks.name, tasks.instruction_from_name, strict=True):
            # a name that several tasks share does not say which instruction is meant
            own = [name for name in names if name and (name != names[1] or tasks.name.count(name) == 1)]
            found = [given[name] for name in own if name in given]
            if not found:
                raise WindowError(
                    f"rdt · lang_embed: one for each task; got none for {names[0] or names[1]!r} → add it by "
                    f"{' or '.join(map(repr, own)) or 'position, in a list'}"
                )
            rows.append(found[0])
    else:
        rows = list(given)
    if len(rows) != store.n_tasks:
        raise WindowError(
            f"rdt · lang_embed: one for each of {store.n_tasks} tasks; got {len(rows)} → follow store.tasks.instruction"
        )
    embeds: list[str | torch.Tensor] = []
    for name, row in zip(tasks.name, rows, strict=True):
        if isinstance(row, str | Path):
            if not Path(row).is_file():
                raise WindowError(f"rdt · lang_embed: {row} is a file; none is there → make it with write_lang_embeds")
            embeds.append(str(row))
        else:
            embed = torch.as_tensor(row)
            _check(embed.shape, name)
            embeds.append(embed)
    return embeds


def pad_lang_embeds(embeds: Sequence[str | torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack embeddings as RDT's collator does: zeros after the last token [n_tasks, n_tokens, d], and a mask of tokens."""
    loaded = [_load(embed) if isinstance(embed, str) else embed for embed in embeds]
    if len(kinds := {(embed.dtype, embed.shape[1]) for embed in loaded}) > 1:
        told = " and ".join(sorted(f"{dtype} [n_tokens, {width}]" for dtype, width in kinds))
        raise WindowError(f"rdt · lang_embed: alike for all tasks; got {told} → make all with one encoder: write_lang_embeds")
    tokens = torch.tensor([len(embed) for embed in loaded])
    mask = torch.arange(int(tokens.max())) < tokens[:, None]
    return torch.nn.utils.rnn.pad_sequence(loaded, batch_first=True), mask


def _load(path: str) -> torch.Tensor:
    embed: Any = torch.load(path, map_location="cpu", weights_only=True)
    embed = embed["embeddings"] if isinstance(embed, Mapping) and "embeddings" in embed else embed  # scripts/encode_lang.py
    if not isinstance(embed, torch.Tensor):
        raise StoreError(f"{path}: a tensor [n_tokens, d]; found {type(embed).__name__} → make it with write_lang_embeds")
    embed = embed[0] if embed.dim() == 3 and len(embed) == 1 else embed
    _check(embed.shape, path)
    tensor: torch.Tensor = embed
    return tensor


def _check(shape: Sequence[int], name: str) -> None:
    if len(shape) != 2 or not np.prod(shape):
        raise WindowError(f"rdt · lang_embed · {name}: [n_tokens, d]; got {list(shape)} → return one row per token")
