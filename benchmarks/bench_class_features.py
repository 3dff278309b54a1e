"""Class features: the literal (B, K, C, h, w) product against one matrix product, forward and backward."""

from collections.abc import Callable

from harness import compare

SWEEP = (5, 40, 80)  # classes


def inputs(images: int, classes: int) -> tuple:
    """Return features (B, C, h, w), maps (B, K, h, w) and the slope of the pooled features (B, K, C)."""
    import torch

    torch.manual_seed(0)
    features, maps = torch.rand(images, 2048, 32, 32), torch.rand(images, classes, 32, 32)
    return features.requires_grad_(), maps.requires_grad_(), torch.randn(images, classes, 2048)


def form(kind: str, images: int, classes: int) -> Callable[[], Callable[[], list]]:
    """Return a function that builds the inputs and returns the work of one form."""

    def prepare() -> Callable[[], list]:
        import torch
        from literal import class_features as literal

        from recamlib.method.maps import class_features

        features, maps, slope = inputs(images, classes)
        compute = {"ours": class_features, "literal": literal}[kind]

        def work() -> list:
            pooled = compute(features, maps)
            gradients = torch.autograd.grad(pooled, (features, maps), slope)
            return [pooled, *gradients]

        return work

    return prepare


if __name__ == "__main__":
    compare(
        "class_features",
        {
            "ours": form("ours", 8, 20),
            "literal": form("literal", 8, 20),
            **{f"ours, K {k}": form("ours", 8, k) for k in SWEEP},
            "ours, B 16, K 80": form("ours", 16, 80),
        },
        sizes={"ours": {"classes": 20}, "literal": {"classes": 20}}
        | {f"ours, K {k}": {"classes": k} for k in SWEEP},
        note="B 8, K 20, C 2048, 32 x 32, forward and backward (literal at B 16, K 80: 10.7 GB a product)",
    )
