"""Lets child processes that have this folder on `PYTHONPATH` import torchvision, which timm and transformers do.

It has no CPU build for this PyTorch; two operators are all that its Python part asks for.
"""

import importlib.util

if importlib.util.find_spec("torch"):
    import torch

    OPERATORS = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
