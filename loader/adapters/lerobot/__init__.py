"""LeRobot: a store in the place of a ``LeRobotDataset``, and a data set of LeRobot's made of a store.

In: a ``Store``. Out: items under LeRobot's names; Parquet, PNG or video files of its version 3.0. Never imports LeRobot itself,
but where LeRobot's own training function is given a store (``serve_stores``). Read first: ``dataset.LeRobotStore``.
"""

from robozarr.loader.adapters.lerobot.dataset import LeRobotStore, serve_stores

__all__ = ["LeRobotStore", "serve_stores"]
