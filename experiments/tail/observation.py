"""What the simulator is observed by. Pure data."""

from __future__ import annotations

from typing import Final

__all__ = ["HELD_FREE", "N_SEEN", "OBS"]

OBS: Final = {
    "ee_pos": slice(0, 3),
    "ee_rot": slice(3, 9),
    "gripper": slice(9, 11),
    "bowl_pos": slice(11, 14),
    "bowl_rot": slice(14, 20),
    "plate_pos": slice(20, 23),
    "joints": slice(23, 30),
}
"""Where each part of an observation lies: float64 [30]. Positions in m, rotations as two columns of their matrix: the first
two of the hand's, the first and the third of the bowl's."""

N_SEEN: Final = OBS["joints"].start
"""The first so many elements are what a policy sees."""
HELD_FREE: Final = 10
"""Control steps (half a second) that the bowl must stay on the plate, touched by no finger, to count as released."""
