"""Lets torchvision be imported beside a torch that its compiled part does not go with: in PYTHONPATH of tests/train's runs.

torchvision registers two operators of its compiled part when it is imported; transforms and networks need none of them.
"""

import torch

_LIBRARY = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
for _name in ("nms", "qnms"):
    _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
