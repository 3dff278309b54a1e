"""Powers of a sparse matrix with eigenvalues in [-1, 1], by the Chebyshev series of ``x ** steps``."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def matrix_powers(matrix: Tensor, start: Tensor, weights: Sequence[Sequence[float]]) -> list[Tensor]:
    """Sums of Chebyshev polynomials of a matrix times columns, one for each list of weights."""
    # A product with one vector takes half the time, but sparse ones on the CPU need MKL.
    if alone := start.shape[1] == 1 and (start.is_cuda or torch.backends.mkl.is_available()):
        start = start[:, 0].contiguous()  # (cells,)
    times = torch.addmv if alone else torch.addmm
    before, now = start, matrix @ start
    ends = [terms[0] * start for terms in weights]
    for number in range(1, max(map(len, weights))):
        if number > 1:
            before, now = now, times(before, matrix, now, beta=-1, alpha=2)
        for end, terms in zip(ends, weights):
            if number < len(terms) and terms[number]:
                end.add_(now, alpha=terms[number])
    return [end[:, None] if alone else end for end in ends]


def power_terms(steps: int, cut: float) -> list[float]:
    """Coefficients of ``x ** steps`` in Chebyshev polynomials, without a tail of sum `cut` or less.

    Term k is the chance that heads and tails of `steps` tossed coins differ by k. They sum to 1.
    """
    longest = math.ceil(math.sqrt(2 * steps * math.log(4 / cut)))  # Hoeffding: leaves out cut / 2 at most
    ways = math.lgamma(steps + 1) - steps * math.log(2)
    terms = []
    for k in range(min(steps, longest) + 1):
        chance = ways - math.lgamma((steps - k) / 2 + 1) - math.lgamma((steps + k) / 2 + 1)
        terms.append((2 if k else 1) * math.exp(chance) if (steps - k) % 2 == 0 else 0.0)
    rest = cut / 2
    while terms[-1] <= rest:
        rest -= terms.pop()
    return terms
