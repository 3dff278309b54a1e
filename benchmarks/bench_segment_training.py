"""Training step of DeepLabV2: a batch, channels last, against an image at a time in NCHW."""

from collections.abc import Callable

from harness import compare

BATCH, CROP = 6, 161


def form(kind: str) -> Callable[[], Callable[[], list]]:
    """Return a function that builds the inputs and returns one training step of a form."""

    def prepare() -> Callable[[], list]:
        import torch
        from literal_segment import CLASSES, gradients, network

        from recamlib.method.losses import multiscale_loss
        from recamlib.models.base import freeze_batch_norm

        # statistics of a batch differ from those of its images: both forms use running ones, as published
        net = freeze_batch_norm(network())
        images = torch.randn(BATCH, 3, CROP, CROP)
        masks = torch.randint(0, CLASSES, (BATCH, CROP, CROP))
        if kind == "literal":
            return lambda: gradients(net, images, masks)
        net.to(memory_format=torch.channels_last).train()
        images = images.to(memory_format=torch.channels_last)

        def step() -> list:
            net.zero_grad(set_to_none=True)
            multiscale_loss(net.training_outputs(images), masks, at=net.loss_at).backward()
            return [p.grad for p in net.parameters() if p.grad is not None]

        return step

    return prepare


if __name__ == "__main__":
    compare(
        "segment_training",
        {"ours": form("ours"), "literal": form("literal")},
        repeats=2,
        rounds=2,
        note=f"DeepLabV2 over MobileNetV2, one step on {BATCH} crops of {CROP} pixels",
    )
