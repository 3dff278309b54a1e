"""The two linear heads of the paper: FC1 over pooled features, FC2 over pooled features of one class."""

import torch
from torch import Tensor, nn

from recamlib.models.base import Backbone


class CamClassifier(nn.Module):
    """A multi-label classifier of K foreground classes whose weights are those of class activation maps.

    With `background` there is one more channel, as EPS trains it, without a logit. Source: Eq. (4). FC1 has
    no bias, so that a class score is the mean of the class's map.

    >>> from recamlib.models.backbones import build_backbone
    >>> model = CamClassifier(build_backbone("resnet_small"), num_classes=5)
    >>> tuple(model(torch.zeros(2, 3, 96, 128)).shape), tuple(model.fc1.weight.shape)
    ((2, 5), (5, 160))
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, background: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc1 = nn.Linear(backbone.channels, num_classes, bias=False)
        self.background = nn.Linear(backbone.channels, 1, bias=False) if background else None

    def features(self, x: Tensor) -> Tensor:
        """Return features ``(B, C, h, w)`` of normalised images ``(B, 3, H, W)``."""
        return self.backbone(x)

    def logits(self, features: Tensor) -> Tensor:
        """Return class scores ``(B, K)`` of features ``(B, C, h, w)``: their mean over pixels, then FC1."""
        return self.fc1(features.mean((2, 3)))

    def scores(self, features: Tensor) -> Tensor:
        """Return scores ``(B, K + 1, h, w)`` of every cell of features ``(B, C, h, w)``, background last."""
        weight = torch.cat([self.fc1.weight, self.background.weight])  # (K + 1, C)
        return (weight @ features.flatten(2)).unflatten(2, features.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores ``(B, K)`` of normalised images ``(B, 3, H, W)``."""
        return self.logits(self.features(x))


class ReactivationHead(nn.Module):
    """The classifier that tells the classes of an image apart by their own features: Eq. (6), as FC1."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc2 = nn.Linear(channels, num_classes, bias=False)

    def forward(self, class_features: Tensor) -> Tensor:
        """Return class scores ``(..., K)`` of class features ``(..., C)``."""
        return self.fc2(class_features)
