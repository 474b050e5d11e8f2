"""Muon for matrices and convolutions, AdamW for the rest.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) makes each momentum matrix
nearly orthogonal by a Newton-Schulz iteration before the step, so that rare directions move as
much as common ones. The step is scaled by 0.2 * sqrt(max(rows, columns)), which gives it the
size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that one learning rate serves both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ITERATIONS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315  # the quintic's coefficients, from the post


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return the matrix [m, n] with its singular values brought near 1.

    Every iterate is a polynomial of the small Gram matrix times the matrix, so the iteration
    runs on the Gram matrix alone: two products with the whole matrix instead of ten.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).float()
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T  # [m, m]
    eye = torch.eye(len(gram), device=gram.device)
    whole = eye
    for _ in range(ITERATIONS):
        step = _A * eye + _B * gram + _C * gram @ gram
        whole = step @ whole
        gram = step @ step @ gram
    x = whole @ x
    result: Tensor = x.T if tall else x
    return result.to(matrix.dtype)


class Muon:
    """One optimizer of both kinds; `step` takes the learning rate of the moment."""

    def __init__(self, module: nn.Module, *, weight_decay: float = 0.01) -> None:
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        self.weight_decay = weight_decay
        self.matrices = [p for n, p in named if _is_matrix(n, p)]
        self.momenta = [torch.zeros_like(p) for p in self.matrices]
        rest = [p for n, p in named if not _is_matrix(n, p)]
        self.rest = torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=0, fused=True)

    def zero_grad(self) -> None:
        self.rest.zero_grad()
        for parameter in self.matrices:
            parameter.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for group in self.rest.param_groups:
            group["lr"] = rate * 0.5
        self.rest.step()
        for parameter, momentum in zip(self.matrices, self.momenta, strict=True):
            if parameter.grad is None:
                continue
            momentum.mul_(MOMENTUM).add_(parameter.grad)
            update = parameter.grad + MOMENTUM * momentum
            flat = update.reshape(len(update), -1)  # [out, in * kernel]
            size = 0.2 * max(flat.shape) ** 0.5
            parameter.mul_(1 - rate * self.weight_decay)
            parameter.add_(orthogonalised(flat).view_as(parameter), alpha=-rate * size)


def _is_matrix(name: str, parameter: Tensor) -> bool:
    """Hidden matrices and kernels; embeddings, first and last layers stay with AdamW."""
    outer = ("embedding", "conv_in", "conv_out", "time_", "trunk")
    return parameter.ndim >= 2 and not any(word in name for word in outer)
