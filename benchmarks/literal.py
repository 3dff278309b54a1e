"""The paper's formulas and the published loop written down as they stand: the slow side of comparisons."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recamlib.data.views import normalise, rescale
from recamlib.models.classifier import CamClassifier


def class_features(features: Tensor, maps: Tensor) -> Tensor:
    """Eq. (5), then GAP: the product ``(B, K, C, h, w)`` of features and maps is built, then averaged."""
    return (features[:, None] * maps[:, :, None]).mean((3, 4))


@torch.no_grad()
def scale_maps(
    model: CamClassifier, image: Tensor, weight: Tensor, *, scales: tuple[float, ...], paired: bool
) -> list[Tensor]:
    """Un-normalised maps of one image, mirror image added, scale after scale: ``(K, h_s, w_s)`` each.

    `paired` puts the image and its mirror image in one batch of two, as the published loader does; without it
    they pass one after the other.
    """
    out = []
    for scale in scales:
        view = normalise(rescale(image, scale))  # (3, h, w)
        if paired:
            features = model.features(torch.stack([view, view.flip(2)]))  # (2, C, h, w)
        else:
            features = torch.cat([model.features(v[None]) for v in (view, view.flip(2))])
        both = F.relu(F.conv2d(features, weight[:, :, None, None]))  # (2, K, h, w)
        out.append(both[0] + both[1].flip(2))
    return out
