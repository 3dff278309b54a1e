"""A small classifier that is not as it was made."""

import pytest
import torch

from recamlib.models.backbones import build_backbone
from recamlib.models.classifier import CamClassifier


@pytest.fixture(scope="session")
def model() -> CamClassifier:
    torch.manual_seed(0)
    model = CamClassifier(build_backbone("resnet_small"), 4)
    model(torch.randn(8, 3, 64, 64))  # running statistics that are not the initial ones
    return model.eval()
