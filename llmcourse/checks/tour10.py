"""Checker of Tour 10: pictures cut into patches, in reading order, each a row of its pixels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import Wrong, call, exercise, first_line, tensor

B, H, W, SIZE = 2, 8, 12, 4
N, PIXELS = (H // SIZE) * (W // SIZE), SIZE * SIZE
Patches = Callable[[Tensor, int], Any]


def patches(images: Tensor, size: int) -> Tensor:
    """Patches (B, n, size * size) of images (B, H, W), row by row; ValueError if `size` divides not both sides."""
    B, H, W = images.shape
    if H % size or W % size:
        raise ValueError(f"Patches of {size} x {size} pixels do not fill a picture of {H} x {W}.")
    grid = images.view(B, H // size, size, W // size, size)  # patches down, rows, patches across, columns
    return grid.transpose(2, 3).reshape(B, -1, size * size)


@exercise(
    "tour10",
    title="Patches",
    signature="patches(images, size)",
    hints=[
        "The height H is H/size rows of patches, and each of them is size rows of pixels: one dimension becomes two. "
        "The same for the width: view(B, H // size, size, W // size, size).",
        "In that order a patch is still torn apart: bring the two that count patches together with transpose(2, 3), "
        "then flatten with reshape(B, -1, size * size).",
        "Test H % size and W % size, each for itself, before anything else: if one is not 0, raise ValueError with a "
        "sentence that names the size and the picture's two sides.",
    ],
    solution=patches,
    right="Reading order, outside and inside, pictures of any shape and type, and no pixel is lost in silence.",
)
def check_patches(learner: Patches) -> None:
    images = torch.arange(B * H * W).view(B, H, W).float()  # every pixel another number
    got = value(learner, images, SIZE, PIXELS)
    if not torch.equal(got, patches(images, SIZE)):
        diagnose(got, images)
    for shape, size in (((3, 6, 4), 2), ((1, 3, 9), 3), ((2, 4, 6), 1)):
        other = torch.randn(shape)
        wanted = patches(other, size)
        what = f"With {size} x {size} patches of a picture of {shape[1]} x {shape[2]}"
        try:
            got = call(learner, images=other, size=size)
        except Wrong:
            raise
        except Exception as e:
            raise Wrong(
                f"{what} it fails ({type(e).__name__}), although the first picture was right: does a fixed number, "
                "such as 4, stand in your code?"
            ) from e
        if not isinstance(got, Tensor) or got.shape != wanted.shape or not torch.equal(got, wanted):
            raise Wrong(f"{what} the result is wrong: use the arguments everywhere, and no fixed sizes.")
    whole = torch.randint(256, (B, H, W), dtype=torch.uint8)
    got = call(learner, images=whole, size=SIZE)
    if got.dtype != whole.dtype:
        raise Wrong("Your result has another dtype than the picture: cutting moves pixels and computes nothing.")
    for height, width in ((7, 8), (8, 7), (8, 18), (2, 2)):
        refuses(learner, height, width)


def value(learner: Patches, images: Tensor, size: int, pixels: int) -> Tensor:
    """What the learner's function returns for a picture that can be cut, of the right shape."""
    try:
        got = call(learner, images=images, size=size)
    except (ValueError, AssertionError) as e:
        if "unpack" in str(e):
            raise Wrong(
                f"It unpacks a shape that is not there ({e}): images is (B, H, W), three numbers, without channels."
            ) from e
        raise Wrong(
            f"It refuses {H} x {W} pixels with size = {size}, which fit exactly: test each side for itself, and do not "
            "ask for squares."
        ) from e
    except NotImplementedError:  # the empty stub
        raise
    except RuntimeError as e:
        raise Wrong(
            f"On pictures of {H} x {W} pixels your code fails ({first_line(e)}): they are not square; is one side used "
            "for both?"
        ) from e
    if isinstance(got, Tensor) and got.shape != (B, N, pixels):
        shape = tuple(got.shape)
        named = {
            (B, pixels, N): "The last two dimensions are exchanged: each patch is a row, (B, n, size * size).",
            (B, N, size, size): "The patches are still square: flatten the last two dimensions into size * size.",
            (B, H // size, W // size, pixels): "The patches still stand in a grid: flatten it into one dimension of n.",
            (B, H // size, W // size, size, size): "Nothing is flattened yet: make one dimension of n, one of pixels.",
            (B * N, pixels): "The pictures of the batch are glued together: keep B as the first dimension.",
            (N, pixels): "Only one picture of the batch comes back: keep all B.",
            (B, (H - size + 1) * (W - size + 1), pixels): "Your patches overlap: move on by size pixels, not by 1.",
            (B, H * W // size, size): "Your pieces are strips of one row of pixels: a patch has size rows.",
        }
        if shape in named:
            raise Wrong(named[shape])
    return tensor(got, (B, N, pixels), dtype=images.dtype, meaning="(B, n, size * size)")


def diagnose(got: Tensor, images: Tensor) -> None:
    """Raise the Wrong that fits patches of the right shape with wrong content."""
    right = patches(images, SIZE)
    square = right.view(B, H // SIZE, W // SIZE, SIZE, SIZE)
    down = square.transpose(1, 2).reshape(B, N, PIXELS)
    turned = square.transpose(3, 4).reshape(B, N, PIXELS)
    named = [
        (
            images.reshape(B, N, PIXELS),
            "You only view the pixels anew: in memory one row of the picture follows the other, so each of your pieces "
            "holds pixels of a single row and its neighbor. Split height and width first, then transpose.",
        ),
        (down, "The patches run down the columns: they are to be read row by row, as a text is."),
        (turned, "Inside each patch the pixels run down the columns: they are to be read row by row too."),
        (
            down.view(B, N, SIZE, SIZE).transpose(2, 3).reshape(B, N, PIXELS),
            "Both orders run down the columns, as if the picture were mirrored at its diagonal: height comes first.",
        ),
        (right.flip(1), "The patches come in reverse: begin at the top left."),
        (
            images.reshape(B, H // SIZE, W // SIZE, PIXELS).flatten(1, 2),
            "You only view the pixels anew, with the grid's shape: the pixels stay where they were.",
        ),
    ]
    for wrong, sentence in named:
        if torch.equal(got, wrong):
            raise Wrong(sentence)
    if torch.equal(got.flatten().sort().values, images.flatten().sort().values):
        both = got.flatten(0, 1), right.flatten(0, 1)
        if all(torch.equal(g.sort().values, r.sort().values) for g, r in zip(*both, strict=True)):
            raise Wrong("Each patch has its own pixels, but in a wrong order: row by row, from left to right.")
        raise Wrong(
            "All pixels are there, but mixed between patches: after the split, the two dimensions that count patches "
            "must stand side by side."
        )
    raise Wrong("The pixels have other values than in the picture: cutting only moves them.")


def refuses(learner: Patches, height: int, width: int) -> None:
    """Raise Wrong unless the learner refuses such a picture with one clear ValueError."""
    picture, what = torch.randn(1, height, width), f"Patches of {SIZE} x {SIZE} do not fill {height} x {width} pixels"
    try:
        got = call(learner, images=picture, size=SIZE)
    except Wrong:
        raise
    except ValueError as e:
        missing = [str(n) for n in (SIZE, height, width) if str(n) not in str(e)]
        if missing:
            raise Wrong(
                f"{what}: a ValueError is right, but its text does not name {missing[0]}. Say the size and both sides, "
                "so that the caller sees what does not fit."
            ) from e
        return
    except AssertionError as e:
        raise Wrong(f"{what}: an assert is for your own mistakes and can be switched off; raise ValueError.") from e
    except Exception as e:
        raise Wrong(
            f"{what}: here comes PyTorch's own {type(e).__name__}, about a view that the caller has never heard "
            "of. Test first, and raise ValueError."
        ) from e
    if not isinstance(got, Tensor):
        raise Wrong(f"{what}: you return {got!r:.30}, and the caller goes on with it. Raise ValueError.")
    n = got.shape[1] if got.ndim == 3 else -1
    if n > (height // SIZE) * (width // SIZE):
        raise Wrong(f"{what}: you fill up the rest, and the model sees a border that nobody drew. Raise ValueError.")
    if height * width % PIXELS == 0:
        raise Wrong(
            f"{what}, although their number of pixels is divisible by {PIXELS}: test each side for itself and raise "
            "ValueError."
        )
    side = "height" if height % SIZE else "width"
    raise Wrong(f"{what}: the {side} leaves a rest, which you cut off in silence. Raise ValueError.")
