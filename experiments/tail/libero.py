"""LIBERO's own "put the bowl on the plate", from a checkout, without cameras; the demonstrator and all else are the same."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, Final

__all__ = ["BOWL", "DEPTH", "PLATE", "RIM", "make_scene"]

BOWL: Final = "akita_black_bowl_1"
PLATE: Final = "plate_1"
RIM: Final = 0.047
"""Where the bowl's rim is grasped, m in y from its middle."""
DEPTH: Final = 0.036
"""And how far above its origin, m."""
TASK: Final = "bddl_files/libero_goal/put_the_bowl_on_the_plate.bddl"


def make_scene(checkout: Path) -> Any:
    """The scene, reset once.

    Raises
    ------
    SystemExit
        If the folder is no checkout of LIBERO, or a package that LIBERO imports is missing.
    """
    base = checkout.resolve() / "libero" / "libero"
    if not (base / TASK).is_file():
        raise SystemExit(f"--libero {checkout}: holds libero/libero/{TASK}; it does not → pass a checkout of LIBERO")
    _prepare(checkout.resolve(), base)
    try:
        from libero.libero.envs.env_wrapper import ControlEnv
    except ModuleNotFoundError as error:
        needs = "pip install --no-deps bddl==1.0.1 future==1.0.0 easydict==1.14 cloudpickle"
        raise SystemExit(f"--libero: LIBERO imports {error.name}, which is not installed → {needs}") from error
    wrapped = ControlEnv(
        bddl_file_name=str(base / TASK), use_camera_obs=False, has_offscreen_renderer=False, has_renderer=False,
        hard_reset=False, horizon=10**9, ignore_done=True, initialization_noise={"magnitude": 0.02, "type": "gaussian"},
    )  # fmt: skip
    wrapped.env.reset()
    return wrapped.env


def _prepare(checkout: Path, base: Path) -> None:
    """Let LIBERO be imported: where its files lie, and a stand-in for gym, of which it uses two names in an annotation."""
    config = Path(tempfile.gettempdir()) / f"libero-config-{os.getpid()}"
    config.mkdir(exist_ok=True)
    folders = {"bddl_files": "bddl_files", "init_states": "init_files", "assets": "assets", "datasets": "../datasets"}
    lines = [f"benchmark_root: {base}", *(f"{name}: {base / folder}" for name, folder in folders.items())]
    (config / "config.yaml").write_text("\n".join(lines) + "\n")
    os.environ["LIBERO_CONFIG_PATH"] = str(config)
    sys.path.insert(0, str(checkout))
    gym, spaces = ModuleType("gym"), ModuleType("gym.spaces")
    gym.Env = gym.Space = spaces.Space = object  # type: ignore[attr-defined]
    gym.spaces = spaces  # type: ignore[attr-defined]
    sys.modules.setdefault("gym", gym)
    sys.modules.setdefault("gym.spaces", spaces)
