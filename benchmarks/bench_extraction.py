"""Multi-scale mirrored maps: the published one-image loop against batches of equal size, channels last."""

from collections.abc import Callable

from harness import compare, network, photographs

SCALES = (1.0, 0.5, 1.5, 2.0)
SIZES = ((375, 500), (500, 375), (375, 500), (333, 500))
PIXELS = sum(h * w for h, w in SIZES) // len(SIZES)
SIDES, COPIES = (0.5, 1.5), (2, 3)  # how time grows with pixels and with images


def form(kind: str, *, side: float = 1.0, copies: int = 1) -> Callable[[], Callable[[], list]]:
    """Return a function that builds the inputs and returns the work of one form."""

    def prepare() -> Callable[[], list]:
        import torch
        from literal import scale_maps

        from recamlib.engine.extract import extract_scale_maps

        torch.manual_seed(0)
        model = network()
        fc1 = model.fc1.weight.detach()
        images = photographs([(round(side * h), round(side * w)) for h, w in SIZES] * copies)
        classes = [torch.tensor([i, i + 1]) for i in range(len(images))]

        def literal() -> list:
            maps = [scale_maps(model, i, fc1, scales=SCALES, paired=kind == "literal") for i in images]
            return [m[c] for scales, c in zip(maps, classes, strict=True) for m in scales]

        def ours() -> list:
            maps = extract_scale_maps(model, images, fc1[None], classes=classes, scales=SCALES)
            return [m[0] for scales in maps for m in scales]

        return ours if kind == "ours" else literal

    return prepare


if __name__ == "__main__":
    compare(
        "extraction",
        {
            "ours": form("ours"),
            "literal": form("literal"),
            "literal, mirror apart": form("literal, mirror apart"),
            **{f"ours, sides x {side}": form("ours", side=side) for side in SIDES},
            **{f"ours, images x {n}": form("ours", copies=n) for n in COPIES},
        },
        repeats=1,
        rounds=2,
        note=f"MobileNetV2 at stride 16, {len(SIZES)} photographs of about 375 x 500, scales {SCALES}",
        sizes={"ours": {"pixels": PIXELS, "images": len(SIZES)}}
        | {f"ours, sides x {side}": {"pixels": round(PIXELS * side * side)} for side in SIDES}
        | {f"ours, images x {n}": {"images": n * len(SIZES)} for n in COPIES},
    )
