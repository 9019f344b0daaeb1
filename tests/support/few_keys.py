"""What tests leave out of synthetic files: a store of few arrays is written, read and compared in a fraction of the time.

What is left is one key of each kind: actions, joints, states of any width, ends, a camera; or both cameras, and no ends.
"""

__all__ = ["BUT_CAMERAS", "OF_LIBERO", "OF_ROBOMIMIC"]

OF_LIBERO = (
    "robot_states", "rewards", "obs/eye_in_hand_rgb", "obs/ee_states", "obs/ee_pos", "obs/ee_ori", "obs/gripper_states",
)  # fmt: skip
OF_ROBOMIMIC = (
    "dones", "obs/robot0_eye_in_hand_image", "obs/robot0_eef_pos", "obs/robot0_gripper_qpos", "obs/object",
)  # fmt: skip
BUT_CAMERAS = (
    "robot_states", "rewards", "dones", "obs/ee_states", "obs/ee_pos", "obs/ee_ori", "obs/gripper_states",
)  # fmt: skip
