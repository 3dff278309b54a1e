"""Networks of segmentation_models_pytorch by this library's names."""

from pathlib import Path

from torch import nn

from recamlib.errors import SettingsError, nearest
from recamlib.models.backbones import _from_registry
from recamlib.models.weights import REGISTRY

_SWIN = {"dynamic_img_size": True, "always_partition": True, "drop_path_rate": 0.3}


def build_smp(
    family: str, name: str, *, classes: int, weights: str | Path | None = None, **options: object
) -> nn.Module:
    """Return a network whose logits come out at stride 4.

    Parameters
    ----------
    family
        ``"DeepLabV3Plus"`` or ``"UPerNet"``.
    name
        Of the encoder: one of segmentation_models_pytorch, or ``"timm/NAME"``.
    classes
        Classes with background.
    weights
        ``"imagenet"`` for the registry's weights of the encoder; anything else leaves it at random.
    options
        Of the network, and of a timm encoder.

    Raises
    ------
    SettingsError
        If the encoder is unknown (the nearest is given) or does not fit the family.
    WeightsError
        If the registry cannot be reached.

    Notes
    -----
    Swin takes images of any size, and cuts and shifts its windows at every size, with a stochastic depth
    of 0.3: the settings of the published UPerNet-Swin-B. It fills windows up after the shift, where the
    published code does so before; sides that are multiples of 224 pixels do not differ.
    """
    import segmentation_models_pytorch as smp  # seconds to import, and only needed here
    import timm

    bare = name.removeprefix("timm/")
    if bare != name:
        encoder, pretrained = f"tu-{bare}", True
        if not timm.is_model(bare):
            raise SettingsError(f"timm has no network {bare!r}{nearest(bare, timm.list_models())}")
    else:
        encoder, pretrained = name, "imagenet"
        known = smp.encoders.get_encoder_names()
        if name not in known:
            hint = nearest(name, known)
            raise SettingsError(f"unknown backbone {name!r}{hint}: use a name of smp, or timm/NAME")
    if bare.startswith("swin_") and bare != name:
        options = _SWIN | options
    build = getattr(smp, family)

    def make(_: str, **kwargs: bool) -> nn.Module:
        chosen = pretrained if kwargs["pretrained"] else None
        return build(encoder, encoder_weights=chosen, classes=classes, upsampling=1, **options)

    try:
        return _from_registry(make, name, pretrained=weights == REGISTRY)
    except (TypeError, NotImplementedError, AssertionError) as error:
        raise SettingsError(f"{family} cannot be built over {name}: {error}") from error
