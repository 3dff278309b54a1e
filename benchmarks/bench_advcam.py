"""AdvCAM: the published loop over classes against one forward and one backward pass a step."""

from collections.abc import Callable
from functools import partial

from harness import compare, network, photographs

SIZES = ((375, 500), (500, 333))
CLASSES = ((3, 7), (0, 7, 12))
STEPS = 3


def form(kind: str) -> Callable[[], Callable[[], list]]:
    """Return a function that builds the inputs and returns the work of one form."""

    def prepare() -> Callable[[], list]:
        import literal_advcam
        import torch

        from recamlib.engine.advcam import adversarial_maps

        torch.manual_seed(0)
        model, images = network(), photographs(SIZES)
        fc1 = model.fc1.weight.detach().clone()
        options = {"scales": (1.0,), "steps": STEPS}

        def literal() -> list:
            steps = partial(literal_advcam.adversarial_maps, model, weight=fc1, **options)
            return [steps(i, classes=c)[0] for i, c in zip(images, CLASSES, strict=True)]

        def ours() -> list:
            precision = "bf16-mixed" if "bf16" in kind else "32-true"
            classes = [torch.tensor(c) for c in CLASSES]
            maps = adversarial_maps(model, images, fc1, classes=classes, precision=precision, **options)
            return [scales[0] for scales in maps]

        return ours if kind.startswith("ours") else literal

    return prepare


if __name__ == "__main__":
    compare(
        "advcam",
        {"ours": form("ours"), "literal": form("literal")},
        repeats=2,
        note=f"MobileNetV2 at stride 16, photographs {SIZES} with {CLASSES}, scale 1.0, {STEPS} steps",
    )
