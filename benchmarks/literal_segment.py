"""Training and prediction of a segmentation network as a plain loop: an image at a time, in NCHW."""

import torch
from torch import Tensor

from recamlib.data.views import normalise, rescale
from recamlib.method.losses import multiscale_loss
from recamlib.models.segmenters import Segmenter, build_segmenter
from recamlib.paths import weights_dir

CLASSES = 21


def network() -> Segmenter:
    """Return the network that is measured, DeepLabV2 over MobileNetV2; random where there are no weights."""
    torch.manual_seed(0)
    weights = "mobilenet_v2_imagenet"
    weights = weights if (weights_dir() / f"{weights}.safetensors").is_file() else None  # speed is the same
    return build_segmenter("deeplabv2", num_classes=CLASSES, backbone="mobilenet_v2", weights=weights)


def gradients(net: Segmenter, images: Tensor, masks: Tensor) -> list[Tensor]:
    """Return the gradients of one step on images (B, 3, h, w) and masks (B, h, w)."""
    net.zero_grad(set_to_none=True)
    net.train()
    known = [(m != 255).sum() for m in masks]
    for image, mask, pixels in zip(images, masks, known, strict=True):
        # the loss is a mean over the known pixels of the batch
        loss = multiscale_loss(net.training_outputs(image[None]), mask[None], at=net.loss_at)
        (loss * pixels / sum(known)).backward()
    return [p.grad for p in net.parameters() if p.grad is not None]


@torch.inference_mode()
def probabilities(net: Segmenter, image: Tensor, *, scales: tuple[float, ...]) -> Tensor:
    """Return class probabilities (K + 1, H, W) of an image (3, H, W), mean over scales and mirror image."""
    size, total = tuple(image.shape[1:]), 0
    for scale in scales:
        view = normalise(rescale(image, scale))[None]
        for flipped in (False, True):
            logits = net.predict(view.flip(3) if flipped else view)
            p = logits.softmax(1).flip(3) if flipped else logits.softmax(1)
            total = total + torch.nn.functional.interpolate(p, size, mode="bilinear", align_corners=False)[0]
    return total / (2 * len(scales))
