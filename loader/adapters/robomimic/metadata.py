"""The metadata that robomimic's training reads from its file: environment, shapes, filter keys; here from a store.

ARISE-Initiative/robomimic, robomimic/utils/file_utils.py, 0.3.0 and 0.5.0 (d309eae): functions of the same names.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robozarr.loader.adapters.robomimic.opening import open_data_set
from robozarr.schemas.errors import WindowError
from robozarr.store.opened import Store

__all__ = ["get_demos_for_filter_key", "get_env_metadata_from_dataset", "get_shape_metadata_from_dataset"]


def get_env_metadata_from_dataset(
    dataset_path: Store | str | Path, set_env_specific_obs_processors: bool = True, *, source: int | None = None
) -> dict[str, Any]:
    """The environment of a store's demos: ``env_name``, ``type``, ``env_kwargs``.

    Parameters
    ----------
    dataset_path : Store or path
    set_env_specific_obs_processors : bool
        Tell robomimic's ObsUtils of the environment's own rules for observations, where this robomimic has such (from 0.4 on).
    source : int, optional
        Whose environment, where the store's sources have several: an entry of ``store.metadata.sources``.

    Raises
    ------
    WindowError
        If the sources state none, or several.
    """
    store, named = open_data_set(dataset_path)
    source = named if source is None else source
    numbers = range(len(store.metadata.sources)) if source is None else [source]
    texts = [_only(of.get("data", {}).get("env_args", {}).get("value")) for of in store.attributes_of_sources(numbers)]
    if None in texts or not texts:
        name = store.metadata.sources[numbers[texts.index(None)] if None in texts else 0].name
        raise WindowError(
            f"robomimic · env_args: the environment of {name}, which states none → leave rollouts out, and give "
            "get_env_metadata_from_dataset's dict by hand"
        )
    environments = {json.dumps(json.loads(text), sort_keys=True): json.loads(text) for text in texts if text is not None}
    if len(environments) > 1:
        raise WindowError(
            f"robomimic · env_args: one environment; the {len(texts)} sources of {store.path} have {len(environments)} → pass "
            "source=, or convert the files of one task into a store"
        )
    [environment] = environments.values()
    environment.get("env_kwargs", {}).pop("env_lang", None)
    if set_env_specific_obs_processors:
        import robomimic.utils.env_utils as env_utils

        if hasattr(env_utils, "set_env_specific_obs_processing"):
            env_utils.set_env_specific_obs_processing(env_meta=environment)
    return dict(environment)


def get_shape_metadata_from_dataset(
    dataset_path: Store | str | Path | None = None,
    all_obs_keys: Sequence[str] | None = None,
    verbose: bool = False,
    *,
    dataset_config: Mapping[str, Any] | None = None,
    action_keys: Sequence[str] = ("actions",),
) -> dict[str, Any]:
    """The shapes that robomimic builds its networks of, by its own ObsUtils.

    Parameters
    ----------
    dataset_path : Store or path
    all_obs_keys : keys, optional
        Default: all observations of the store.
    verbose : bool
        Print them.
    dataset_config : mapping
        Of robomimic 0.5, in `dataset_path`'s place: ``path``, and ``lang`` for ``lang_emb``.
    action_keys : keys
        Of robomimic 0.5.

    Returns
    -------
    dict
        ``ac_dim``; ``all_shapes``, by key; ``all_obs_keys``; ``use_images``, and ``use_depths`` where this robomimic has it.
    """
    import robomimic.utils.obs_utils as obs_utils

    path = dataset_path if dataset_config is None else dataset_config["path"]
    assert path is not None
    store, _ = open_data_set(path)
    if all_obs_keys is None:
        all_obs_keys = [key.name for key in store.metadata.keys if key.source.startswith("obs/")]
    shapes: OrderedDict[str, Any] = OrderedDict()
    for name in sorted(all_obs_keys):
        if name == "lang_emb" and name not in store.keys:
            import robomimic.utils.lang_utils as lang_utils

            shape = lang_utils.get_lang_emb_shape()
        else:
            shape = _key(store, name).shape
        if verbose:
            print(f"obs key {name} with shape {shape}")
        modality = obs_utils.OBS_KEYS_TO_MODALITIES[name]
        shapes[name] = obs_utils.get_processed_shape(obs_modality=modality, input_shape=shape)
    found = {
        "ac_dim": sum(_width(store, name) for name in action_keys),
        "all_shapes": shapes,
        "all_obs_keys": all_obs_keys,
        "use_images": obs_utils.has_modality("rgb", all_obs_keys),
    }
    if dataset_config is not None:
        found["use_depths"] = obs_utils.has_modality("depth", all_obs_keys)
    return found


def get_demos_for_filter_key(hdf5_path: Store | str | Path, filter_key: str) -> list[str]:
    """Names of the demos of a split; with the source's name before them, where the store has several."""
    store, source = open_data_set(hdf5_path)
    episodes = store.episodes
    if filter_key not in episodes.splits:
        there = ", ".join(episodes.splits) or "none"
        raise WindowError(f"robomimic · filter key: a split of the store ({there}); got {filter_key!r} → pass one of these")
    sources = store.metadata.sources
    return [
        episodes.demo[i] if len(sources) == 1 else f"{sources[int(episodes.source[i])].name}/{episodes.demo[i]}"
        for i in np.flatnonzero(episodes.splits[filter_key]).tolist()
        if source is None or episodes.source[i] == source
    ]


def _only(value: Any) -> str | None:
    """An attribute's text, which may be the only element of an array."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else None


def _key(store: Store, name: str) -> Any:
    found = store.keys.get(name) or store.keys.get(name.replace("/", "."))
    if found is None:
        raise WindowError(f"robomimic · key: one of the store's ({', '.join(store.keys)}); got {name!r} → pass one of these")
    return found


def _width(store: Store, name: str) -> int:
    shape = _key(store, name).shape
    if len(shape) != 1:
        raise WindowError(f"robomimic · action_keys · {name}: [d] per step; got {list(shape)} → name another key")
    return int(shape[0])
