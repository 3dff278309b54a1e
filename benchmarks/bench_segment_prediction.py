"""Prediction of DeepLabV2: mirrors in the batch, channels last, BatchNorm folded; against a plain loop."""

from collections.abc import Callable

from harness import compare

SIZE, SCALES = (250, 334), (0.5, 1.0, 1.5)


def form(kind: str) -> Callable[[], Callable[[], list]]:
    """Return a function that builds the inputs and returns one prediction of a form."""

    def prepare() -> Callable[[], list]:
        import torch
        from literal_segment import network, probabilities

        from recamlib.engine.predict import segment_image
        from recamlib.models.base import fold_batch_norm

        net = network().eval()
        image = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)
        if kind == "literal":
            return lambda: [probabilities(net, image, scales=SCALES)]
        net = fold_batch_norm(net).to(memory_format=torch.channels_last)
        return lambda: [segment_image(net.predict, image, scales=SCALES, mirror=True)]

    return prepare


if __name__ == "__main__":
    compare(
        "segment_prediction",
        {"ours": form("ours"), "literal": form("literal")},
        repeats=2,
        rounds=2,
        note=f"DeepLabV2 over MobileNetV2, a {SIZE[0]} x {SIZE[1]} image, scales {SCALES}, mirrored",
    )
