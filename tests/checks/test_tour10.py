"""Tour 10: right patches pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse.checks import check

Say = Callable[[], str]


def fits(images: Tensor, size: int) -> tuple[int, int, int]:
    B, H, W = images.shape
    if H % size or W % size:
        raise ValueError(f"{size} does not divide {H} and {W}")
    return B, H, W


def by_view(images: Tensor, size: int) -> Tensor:
    B, H, W = fits(images, size)
    return images.view(B, H // size, size, W // size, size).transpose(2, 3).reshape(B, -1, size * size)


def by_permute(images: Tensor, size: int) -> Tensor:
    B, H, W = fits(images, size)
    grid = images.reshape(B, H // size, size, W // size, size).permute(0, 1, 3, 2, 4)
    return grid.flatten(3).flatten(1, 2)


def by_tensor_unfold(images: Tensor, size: int) -> Tensor:
    fits(images, size)
    return images.unfold(1, size, size).unfold(2, size, size).flatten(3).flatten(1, 2)


def by_loop(images: Tensor, size: int) -> Tensor:
    B, H, W = fits(images, size)
    rows = [
        images[:, r : r + size, c : c + size].reshape(B, size * size)
        for r in range(0, H, size)
        for c in range(0, W, size)
    ]
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("learner", [by_view, by_permute, by_tensor_unfold, by_loop])
def test_patches_pass_in_any_style(learner: Any, said: Say) -> None:
    assert check("tour10", learner), said()
    assert said().startswith("tour10: right. ")


def cut(images: Tensor, size: int) -> Tensor:
    """(B, rows, columns, size, size), with the error."""
    B, H, W = fits(images, size)
    return images.reshape(B, H // size, size, W // size, size).transpose(2, 3)


def view_only(images: Tensor, size: int) -> Tensor:
    B, _, _ = fits(images, size)
    return images.reshape(B, -1, size * size)


def mixed(images: Tensor, size: int) -> Tensor:
    B, H, W = fits(images, size)
    return images.reshape(B, H // size, size, W // size, size).transpose(1, 2).reshape(B, -1, size * size)


def swapped(images: Tensor, size: int) -> Tensor:
    B, H, W = fits(images, size)
    return images.reshape(B, W // size, size, H // size, size).transpose(2, 3).reshape(B, -1, size * size)


def fixed(images: Tensor, size: int) -> Tensor:
    return cut(images, 4).flatten(3).flatten(1, 2)


def pads(images: Tensor, size: int) -> Tensor:
    _, H, W = images.shape
    return cut(F.pad(images, (0, -W % size, 0, -H % size)), size).flatten(3).flatten(1, 2)


def crops(images: Tensor, size: int) -> Tensor:
    return images.unfold(1, size, size).unfold(2, size, size).flatten(3).flatten(1, 2)


def height_only(images: Tensor, size: int) -> Tensor:
    if images.shape[1] % size:
        raise ValueError(f"{size} does not divide {tuple(images.shape)}")
    return crops(images, size)


def by_pixels(images: Tensor, size: int) -> Tensor:
    _, H, W = images.shape
    if H * W % size**2 or min(H, W) < size:
        raise ValueError(f"{size} does not fit into {H} x {W}")
    if W % size and H == 8 and W < 10:
        raise ValueError(f"{size} does not fit into {H} x {W}")
    return crops(images, size)


def squares(images: Tensor, size: int) -> Tensor:
    if images.shape[1] != images.shape[2]:
        raise ValueError("Only squares")
    return by_view(images, size)


def no_test(images: Tensor, size: int) -> Tensor:
    B, H, W = images.shape
    return images.view(B, H // size, size, W // size, size).transpose(2, 3).reshape(B, -1, size * size)


def asserts(images: Tensor, size: int) -> Tensor:
    assert images.shape[1] % size == 0 and images.shape[2] % size == 0
    return no_test(images, size)


def channels(images: Tensor, size: int) -> Tensor:
    B, C, H, W = images.shape
    return by_view(images.view(B * C, H, W), size)


def square_assumed(images: Tensor, size: int) -> Tensor:
    B, _, W = images.shape
    n = W // size
    return images.reshape(B, n, size, n, size).transpose(2, 3).reshape(B, -1, size * size)


def says_nothing(images: Tensor, size: int) -> Tensor:
    if images.shape[1] % size or images.shape[2] % size:
        raise ValueError("The picture does not fit.")
    return no_test(images, size)


def in_place(images: Tensor, size: int) -> Tensor:
    images -= images.float().mean().to(images.dtype)
    return by_view(images, size)


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "view only": (view_only, "holds pixels of a single row"),
    "columns": (lambda images, size: cut(images, size).transpose(1, 2).flatten(3).flatten(1, 2), "patches run down"),
    "turned": (lambda images, size: cut(images, size).transpose(3, 4).flatten(3).flatten(1, 2), "Inside each patch"),
    "both": (lambda images, size: by_view(images.transpose(1, 2).contiguous(), size), "mirrored at its diagonal"),
    "reverse": (lambda images, size: by_view(images, size).flip(1), "come in reverse"),
    "mixed": (mixed, "mixed between patches"),
    "swapped sides": (swapped, "mixed between patches"),
    "shuffled inside": (lambda images, size: by_view(images, size).flip(2), "has its own pixels"),
    "F.unfold": (
        lambda images, size: F.unfold(images[:, None], size, stride=size),
        "last two dimensions are exchanged",
    ),
    "squares kept": (lambda images, size: cut(images, size).flatten(1, 2), "still square"),
    "grid kept": (lambda images, size: cut(images, size).flatten(3), "still stand in a grid"),
    "nothing flat": (cut, "Nothing is flattened"),
    "glued": (lambda images, size: by_view(images, size).flatten(0, 1), "glued together"),
    "one picture": (lambda images, size: by_view(images, size)[0], "Only one picture"),
    "overlap": (
        lambda images, size: images.unfold(1, size, 1).unfold(2, size, 1).flatten(3).flatten(1, 2),
        "Your patches overlap",
    ),
    "strips": (lambda images, size: images.reshape(len(images), -1, size), "strips of one row"),
    "scaled": (lambda images, size: by_view(images, size) / 255, "have other values"),
    "fixed size": (fixed, "a fixed number"),
    "floats": (lambda images, size: by_view(images, size).float(), "another dtype"),
    "only squares": (squares, "which fit exactly"),
    "pads": (pads, "a border that nobody drew"),
    "crops": (crops, "the height leaves a rest"),
    "height only": (height_only, "the width leaves a rest"),
    "pixels counted": (by_pixels, "their number of pixels is divisible"),
    "no test": (no_test, "PyTorch's own RuntimeError"),
    "assert": (asserts, "can be switched off"),
    "says nothing": (says_nothing, "does not name"),
    "channels": (channels, "without channels"),
    "square assumed": (square_assumed, "one side used"),
    "returns None": (lambda images, size: None if images.shape[1] % size else no_test(images, size), "you return None"),
    "in place": (in_place, "changes its input"),
    "nothing": (lambda images, size: None, "returned None"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("tour10", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("tour10", WRONG, least=18)
