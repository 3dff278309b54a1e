"""Predictions for whole images: scales, mirror image, windows; against a network that knows the answer."""

import pytest
import torch

from recamlib.engine.predict import segment_image


def red(x):
    """Logits that follow the first channel of the pixels themselves, at half resolution."""
    return torch.nn.functional.avg_pool2d(torch.stack([-x[:, 0], x[:, 0]], 1), 2, ceil_mode=True)


def picture(height=40, width=61):
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, :, width // 2 :] = 255
    return image


@pytest.mark.parametrize("settings", [
    {}, {"mirror": True}, {"scales": (0.5, 1.0, 1.5), "mirror": True}, {"window": 32},
    {"precision": "bf16-mixed"},
])  # fmt: skip
def test_probabilities_follow_the_picture_at_its_own_size(settings):
    both = segment_image(red, picture(), **settings)
    assert both.shape == (2, 40, 61) and torch.allclose(both.sum(0), torch.ones(40, 61), atol=1e-5)
    assert (both[1, :, 36:] > 0.9).all() and (both[1, :, :24] < 0.1).all()


def test_the_mirror_image_is_turned_back_and_a_local_network_does_not_notice_the_windows():
    def lopsided(x):  # sees the left edge only
        column = torch.arange(x.shape[3], dtype=torch.float32).expand(len(x), 1, *x.shape[2:])
        return torch.cat([column * 0, 5 - column], 1)

    alone = segment_image(lopsided, picture())
    both = segment_image(lopsided, picture(), mirror=True)
    assert not torch.allclose(alone, alone.flip(2)) and torch.allclose(both, both.flip(2), atol=1e-6)
    image = (torch.rand(3, 90, 131, generator=torch.Generator().manual_seed(0)) * 255).byte()
    local = lambda x: torch.stack([x[:, 0], x[:, 1]], 1)  # noqa: E731
    whole, parts = (segment_image(local, image, window=size) for size in (0, 37))
    assert torch.allclose(whole, parts, atol=1e-5)
    seen = []
    segment_image(lambda x: seen.append(x.shape[2:]) or local(x), image, window=64)
    assert max(max(shape) for shape in seen) <= 64
