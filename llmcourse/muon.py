"""Muon: momentum, made orthogonal. The optimizer of the fast recipe, for the matrices inside the blocks.

The momentum of a weight matrix usually has a few strong directions and many weak ones. Muon replaces it by the nearest
matrix whose directions are all equally strong: with the singular value decomposition M = U S Vᵀ, that is U Vᵀ. No
decomposition is needed: a polynomial, applied a few times, pushes every singular value towards 1, and it takes nothing
but products of matrices.

`torch.optim.Muon` does the same, one matrix at a time and always in bfloat16, which processors without bfloat16
arithmetic (most CPUs, and a T4) have to emulate. Here all matrices of one shape are one batch, in the precision they
are stored in; a GPU that computes in bfloat16 does so here too. The test suite shows that both take the same steps.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# The polynomial a s + b s³ + c s⁵ of Jordan et al.: after five rounds every singular value between 0.01 and 1 lies
# between 0.7 and 1.2. It is steep at 0, so that weak directions grow quickly, and pays for that with the ripple.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, rounds: int = 5) -> Tensor:
    """Matrices `(…, rows, columns)` with the same directions, all singular values pushed towards 1."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the products below are as small as the shorter side
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)  # no singular value is above 1
    if x.is_cuda and torch.cuda.get_device_capability(x.device) >= (8, 0):
        x = x.bfloat16()
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for weight matrices `(rows, columns)`, with Nesterov momentum and decoupled weight decay.

    lr: how far every direction moves in one step; tall matrices move √(rows / columns) times as far. rounds: of the
    polynomial; three cost little more than half of the usual five and orthogonalize less exactly.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        rounds: int = 5,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "rounds": rounds})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every matrix that has a gradient."""
        loss = torch.enable_grad()(closure)() if closure else None
        for group in self.param_groups:
            same_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    same_shape.setdefault(p.shape, []).append(p)
            for (rows, columns), weights in same_shape.items():
                grads = [p.grad for p in weights if p.grad is not None]
                momenta = [self.momentum_of(p) for p in weights]
                torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])  # running averages of the gradients
                ahead = torch._foreach_lerp(grads, momenta, group["momentum"])  # Nesterov: one step further
                updates = orthogonalize(torch.stack(ahead), group["rounds"])  # (matrices, rows, columns)
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                length = group["lr"] * math.sqrt(max(1, rows / columns))
                torch._foreach_add_(weights, list(updates.unbind()), alpha=-length)
        return loss

    def momentum_of(self, p: Tensor) -> Tensor:
        """The running average of the gradients of `p`, 0 at first."""
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        return state["momentum_buffer"]
