"""The CAM methods of the grad-cam package, on the classifiers and photographs of this library."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from recamlib.data.views import normalise, rescale
from recamlib.engine.extract import LONGEST
from recamlib.errors import RecamError, SettingsError, nearest
from recamlib.models.classifier import CamClassifier

Method = Literal["gradcam", "gradcam++", "layercam", "scorecam"]


def packaged_maps(
    model: CamClassifier,
    images: Sequence[Tensor],
    *,
    method: Method,
    classes: Sequence[Tensor],
    scales: Sequence[float] = (1.0,),
) -> list[list[Tensor]]:
    """Maps of the classes present in each image by a method of the grad-cam package.

    Parameters
    ----------
    model
        Its device is used; it is put in evaluation mode. The target layer is the backbone's output.
    images
        Shape ``(3, H, W)`` each, uint8.
    method
        ``"gradcam"``, ``"gradcam++"``, ``"layercam"`` or ``"scorecam"``, which runs the network once for
        every channel of the features.
    classes
        Indices of the classes present in each image, shape ``(P,)`` each; may be empty.
    scales
        Factors that each image is resized by, as in `recamlib.engine.extract.extract_scale_maps`.

    Returns
    -------
    One list an image, one tensor ``(P, h_s, w_s)`` a scale: float32, on the CPU, at the resolution of the
    features; image and mirror image, each scaled to [0, 1] by the package, are summed.

    Raises
    ------
    RecamError
        If the package is not installed.
    SettingsError
        If the method is unknown.

    Notes
    -----
    For a mean over pixels followed by a linear layer the gradient of a score is the layer's weight over the
    number of pixels, so Grad-CAM is the ordinary map up to its scale.
    """
    build, target = _package(method)
    model.eval()
    cam = build(model=model, target_layers=[model.backbone])
    cam.get_target_width_height = lambda _: None  # not enlarged here: merging does it, for all methods alike
    found: list[list[Tensor]] = []
    try:
        for image, present in zip(images, classes, strict=True):
            found.append([])
            for scale in scales:
                view = normalise(rescale(image, min(scale, LONGEST / max(image.shape[1:]))))
                pair = torch.stack([view, view.flip(2)]).to(model.fc1.weight.device)  # (2, 3, H, W)
                maps = [_one(cam, pair, target(int(k)), alone=method == "scorecam") for k in present]
                found[-1].append(torch.stack(maps) if maps else torch.zeros(0, 1, 1))
    finally:
        cam.activations_and_grads.release()
        model.zero_grad(set_to_none=True)
    return found


def _one(cam: Any, pair: Tensor, target: Any, *, alone: bool) -> Tensor:
    """Return the map ``(h, w)`` of one class, of an image and its mirror image ``(2, 3, H, W)``."""
    if alone:  # the network's inputs for all channels of one view are in memory at once
        image, mirror = (cam(input_tensor=view[None], targets=[target])[0] for view in pair)
    else:
        image, mirror = cam(input_tensor=pair, targets=[target, target])
    return torch.from_numpy(np.ascontiguousarray(image + mirror[:, ::-1], dtype=np.float32))


def _package(method: str) -> tuple[Any, Any]:
    """Return a method's class and the class of its targets."""
    names = dict(zip(get_args(Method), ("GradCAM", "GradCAMPlusPlus", "LayerCAM", "ScoreCAM")))
    if method not in names:
        raise SettingsError(f"unknown method {method!r}{nearest(method, names)}: use one of {tuple(names)}")
    try:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise RecamError(
            "the comparison needs the grad-cam package, which the extra compare installs: "
            "pip install -e '.[compare]'"
        ) from error
    return getattr(pytorch_grad_cam, names[method]), ClassifierOutputTarget
