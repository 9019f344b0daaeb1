"""The task: robosuite's Panda at robosuite's table, a bowl and a plate made of boxes; the bowl goes onto the plate.

The parts of the scene are written here, so that nothing has to be downloaded. ``libero.py`` builds LIBERO's own scene instead.
This module needs robosuite. What steps it is ``stepper.py``.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from robosuite.environments.manipulation.single_arm_env import SingleArmEnv
from robosuite.models.arenas import TableArena
from robosuite.models.objects import CompositeObject
from robosuite.models.tasks import ManipulationTask

__all__ = ["BOWL", "DEPTH", "PLATE", "RADIUS", "BowlOnPlate", "make_scene"]

BOWL: Final = "bowl"
PLATE: Final = "plate"

RADIUS: Final = 0.045
"""Of the bowl's wall, m."""
WALL: Final = (0.0025, 0.0215)
"""Half thickness and half height of the bowl's wall, m."""
N_WALLS: Final = 12
DEPTH: Final = 0.012
"""How far above the bowl's middle the hand grasps, m; in y it is RADIUS away from it."""
TABLE_Z: Final = 0.8
"""Height of the table's top, m."""
BOWL_AREA: Final = ((-0.10, 0.02), (-0.14, -0.04))
"""Where the bowl begins: x and y, m, from the middle of the table."""
PLATE_AREA: Final = ((-0.08, 0.04), (0.06, 0.16))
"""Where the plate begins. Anything in both areas is far enough from anything in the other."""
NOISE: Final = {"magnitude": 0.02, "type": "gaussian"}
"""Of the arm's joints at the beginning, rad."""


def make_bowl() -> CompositeObject:
    """A bowl: a square floor and a wall of twelve boxes; boxes meet boxes in exact and fast contacts."""
    angles = 2 * np.pi * np.arange(N_WALLS) / N_WALLS
    half_width = RADIUS * np.tan(np.pi / N_WALLS) + 0.001
    floor_height = 0.003
    walls = [(RADIUS * np.cos(angle), RADIUS * np.sin(angle), 0.0015) for angle in angles]
    turned = [(np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)) for angle in angles]
    return CompositeObject(
        name=BOWL,
        total_size=[RADIUS + WALL[0], RADIUS + WALL[0], WALL[1] + 0.0015],
        geom_types=["box"] * (N_WALLS + 1),
        geom_sizes=[(0.036, 0.036, floor_height), *[(WALL[0], half_width, WALL[1])] * N_WALLS],
        geom_locations=[(0.0, 0.0, -WALL[1] - 0.0015 + floor_height), *walls],
        geom_quats=[(1.0, 0.0, 0.0, 0.0), *turned],
        geom_names=["floor", *[f"wall{i}" for i in range(N_WALLS)]],
        geom_frictions=[(1.0, 0.005, 0.0001)] * (N_WALLS + 1),
        density=600.0,
        locations_relative_to_center=True,
        obj_types="collision",
    )


def make_plate() -> CompositeObject:
    """A square plate, heavy enough to stay where it is."""
    return CompositeObject(
        name=PLATE,
        total_size=[0.075, 0.075, 0.006],
        geom_types=["box"],
        geom_sizes=[(0.075, 0.075, 0.006)],
        geom_locations=[(0.0, 0.0, 0.0)],
        geom_names=["top"],
        geom_frictions=[(1.0, 0.005, 0.0001)],
        density=2000.0,
        locations_relative_to_center=True,
        obj_types="collision",
    )


class BowlOnPlate(SingleArmEnv):  # type: ignore[misc]
    """The task as an environment of robosuite, with OSC_POSE at 20 Hz, as LIBERO's are."""

    def __init__(self) -> None:
        from robosuite.controllers import load_controller_config

        super().__init__(
            robots="Panda",
            controller_configs=load_controller_config(default_controller="OSC_POSE"),
            initialization_noise=NOISE,
            use_camera_obs=False,
            has_renderer=False,
            has_offscreen_renderer=False,
            control_freq=20,
            horizon=10**9,
            ignore_done=True,
            hard_reset=False,
        )

    def _load_model(self) -> None:
        super()._load_model()
        robot = self.robots[0].robot_model
        robot.set_base_xpos(robot.base_xpos_offset["table"](0.8))
        arena = TableArena(table_full_size=(0.8, 0.8, 0.05), table_offset=(0, 0, TABLE_Z))
        arena.set_origin([0, 0, 0])
        self.objects = {BOWL: make_bowl(), PLATE: make_plate()}
        self.model = ManipulationTask(mujoco_arena=arena, mujoco_robots=[robot], mujoco_objects=list(self.objects.values()))

    def _setup_references(self) -> None:
        super()._setup_references()
        self.obj_body_id = {name: self.sim.model.body_name2id(made.root_body) for name, made in self.objects.items()}

    def _reset_internal(self) -> None:
        super()._reset_internal()
        for name, area, height in ((BOWL, BOWL_AREA, WALL[1] + 0.0015), (PLATE, PLATE_AREA, 0.006)):
            x, y = (np.random.uniform(*span) for span in area)  # noqa: NPY002 - robosuite draws the arm's noise from it too
            place = np.array([x, y, TABLE_Z + height + 0.001, 1.0, 0.0, 0.0, 0.0])
            self.sim.data.set_joint_qpos(self.objects[name].joints[0], place)

    def reward(self, action: Any = None) -> float:
        """1 where the bowl is on the plate, or else 0."""
        return float(self._check_success())

    def _check_success(self) -> bool:
        """LIBERO's rule of ``On``: the two touch, and the bowl's middle is above the plate's and within 3 cm of it."""
        bowl, plate = (self.sim.data.body_xpos[self.obj_body_id[name]] for name in (BOWL, PLATE))
        near = np.hypot(*(bowl[:2] - plate[:2])) < 0.03 and bowl[2] >= plate[2]
        return bool(near and self.check_contact(self.objects[BOWL], self.objects[PLATE]))


def make_scene() -> BowlOnPlate:
    """The scene, reset once."""
    scene = BowlOnPlate()
    scene.reset()
    return scene
