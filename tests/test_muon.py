"""Muon: the same steps as PyTorch's, and orthogonal updates."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.muon import Muon, orthogonalize

torch.set_num_threads(1)
SHAPES = [(24, 24), (24, 96), (96, 24), (72, 24), (24, 24)]


def parameters(seed: int = 0) -> list[torch.nn.Parameter]:
    g = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(0.02 * torch.randn(shape, generator=g)) for shape in SHAPES]


@pytest.mark.promise(
    "Equality",
    "The course's Muon takes the steps of `torch.optim.Muon`, apart from the rounding of the latter's bfloat16.",
)
def test_it_takes_the_steps_of_pytorchs_muon():
    ours, theirs = parameters(), parameters()
    start = [p.detach().clone() for p in ours]
    mine, torchs = Muon(ours, lr=0.02, weight_decay=0.1), torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1)
    for step in range(5):
        for p, q, g in zip(ours, theirs, parameters(seed=step + 1), strict=True):
            p.grad, q.grad = g.detach().clone(), g.detach().clone()
        mine.step()
        torchs.step()
    for p, q, s in zip(ours, theirs, start, strict=True):
        moved = (q - s).norm()  # of the way that PyTorch's went
        assert (p - q).norm().item() < 0.03 * moved.item()  # theirs computes in bfloat16, which keeps 8 bits
        assert (p - s).norm().item() == pytest.approx(moved.item(), rel=0.02)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_five_rounds_make_all_directions_about_equally_strong(rows: int, columns: int, seed: int):
    m = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(seed))
    before, after = torch.linalg.svdvals(m), torch.linalg.svdvals(orthogonalize(m))
    strong = before / before.norm(dim=-1, keepdim=True) > 0.01
    assert ((after > 0.6) & (after < 1.3))[strong].all()


def test_the_directions_stay_those_of_the_matrix():
    m = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    u, _, vt = torch.linalg.svd(m, full_matrices=False)
    kept = u.T @ orthogonalize(m) @ vt.T  # diagonal, if U and V are still its singular vectors
    assert (kept - kept.diagonal().diag()).abs().max() < 1e-4
    torch.testing.assert_close(orthogonalize(m.T), orthogonalize(m).T)


def test_fewer_rounds_are_less_exact():
    m = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    off = [(torch.linalg.svdvals(orthogonalize(m, rounds)) - 1).abs().mean() for rounds in (1, 3, 5)]
    assert off[0] > off[1] > off[2]


def test_a_matrix_without_a_gradient_stays_and_zero_stays_finite():
    still, zero = parameters()[:2]
    zero.grad = torch.zeros_like(zero)
    before = still.detach().clone()
    Muon([still, zero], weight_decay=0.0).step()
    assert torch.equal(still, before) and zero.isfinite().all()


def test_weight_decay_shrinks_and_a_closure_gives_the_loss():
    p = parameters()[0]
    p.grad = torch.zeros_like(p)
    before = p.detach().clone()
    assert Muon([p], lr=0.5, weight_decay=0.1).step(lambda: 7.0) == 7.0
    torch.testing.assert_close(p.detach(), before * 0.95)
