"""Name LeRobot's features as a store names its keys. Pure.

A data set that robozarr made says which key each feature is, and which features repeat others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from robozarr.schemas.source import Role

__all__ = ["ACTION", "COUNTERS", "FOLLOWS", "joined_of", "key_of", "role_of", "shape_of", "why_not"]

ACTION: Final = "action"
COUNTERS: Final = ("timestamp", "frame_index", "episode_index", "index", "task_index")
FOLLOWS: Final = "follows from which step of which episode a row is"
PREFIXES: Final = ("observation.images.", "observation.")


def key_of(feature: str, made: Mapping[str, Any]) -> str:
    """Name of the key.

    >>> key_of("observation.images.top", {}), key_of("observation.state", {}), key_of("action", {}), key_of("next.done", {})
    ('top', 'state', 'actions', 'next.done')
    """
    if feature == ACTION:
        return "actions"
    if feature == "actions":  # that name is taken
        return "data.actions"
    stated = _made_of(feature, made).get("key")
    if isinstance(stated, str) and stated not in ("", "actions"):
        return stated
    return next((feature.removeprefix(prefix) for prefix in PREFIXES if feature.startswith(prefix)), feature)


def shape_of(feature: str, shape: tuple[int, ...], made: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of a step. LeRobot writes [1] as a single number: it is [1] only if the data set says so, or for actions.

    >>> shape_of("next.reward", (), {}), shape_of("action", (), {})
    ((), (1,))
    """
    stated = _made_of(feature, made).get("shape")
    return (1,) if shape == () and (stated == [1] or feature == ACTION) else shape


def joined_of(feature: str, features: Iterable[str], made: Mapping[str, Any]) -> tuple[str, ...]:
    """The features that were joined into a feature of an export, if all of them are there; else none."""
    by_key = {key_of(name, made): name for name in features if name != feature}
    joined = _made_of(feature, made).get("joined")
    keys = joined if isinstance(joined, list) else []
    return tuple(by_key[key] for key in keys) if all(isinstance(key, str) and key in by_key for key in keys) else ()


def why_not(feature: str, entry: Mapping[str, Any]) -> str:
    """Why a feature is not stored; "" if it is."""
    if feature in COUNTERS:
        return FOLLOWS
    if entry.get("dtype") == "string":
        return "text a step"
    info = entry.get("info") or entry.get("video_info") or {}
    if info.get("video.is_depth_map") or info.get("is_depth_map"):
        return "depth coded as a video, which is not exact"
    return ""


def role_of(feature: str) -> Role | None:
    """Role of a feature's key, where its name says it."""
    if feature == ACTION:
        return "action"
    return "outcome" if feature.startswith("next.") else None


def _made_of(feature: str, made: Mapping[str, Any]) -> Mapping[str, Any]:
    features = made.get("features")
    found = features.get(feature) if isinstance(features, Mapping) else None
    return found if isinstance(found, Mapping) else {}
