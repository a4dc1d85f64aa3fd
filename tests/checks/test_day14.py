"""Day 14: the right loader passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llmcourse.checks import check, day14

Say = Callable[[], str]
Weights = dict[str, Tensor]
LINEAR = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def by_copy(model: Any, weights: Weights) -> None:
    """Parameter after parameter, in place, after everything has been looked at."""
    full = {n if n.startswith("transformer.") or n == "lm_head.weight" else "transformer." + n: w
            for n, w in weights.items() if ".attn.bias" not in n and "masked_bias" not in n}  # fmt: skip
    sd = model.state_dict()
    full.setdefault("lm_head.weight", full.get("transformer.wte.weight"))
    for n in sd:
        if full.get(n) is None:
            raise KeyError(n)
    for n in full:
        if n not in sd:
            raise KeyError(f"unknown {n}")
    assert (full["lm_head.weight"] == full["transformer.wte.weight"]).all(), "head"
    with torch.no_grad():
        for n, w in full.items():
            sd[n].copy_(w.transpose(0, 1) if n.endswith(LINEAR) else w)


def and_tied_again(model: Any, weights: Weights) -> nn.Module:
    """Unties by assignment and ties again; a result is allowed and ignored."""
    day14.load_gpt2(model, weights)
    for block in model.transformer["h"]:
        for m in block.modules():
            if isinstance(m, nn.Linear):
                m.weight = nn.Parameter(m.weight.detach().clone())
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    model.transformer["wte"].weight = model.lm_head.weight
    return model


def by_strict(model: Any, weights: Weights) -> None:
    """Lets load_state_dict refuse."""
    new = {}
    for n, w in weights.items():
        n = "transformer." + n.removeprefix("transformer.") if n != "lm_head.weight" else n
        if not n.endswith((".attn.bias", ".masked_bias")):
            linear = w.ndim == 2 and n.split(".")[-2] in ("c_attn", "c_fc", "c_proj")
            new[n] = w.t().contiguous() if linear else w.clone()
    if "transformer.wte.weight" in new:
        new.setdefault("lm_head.weight", new["transformer.wte.weight"])
        if not new["lm_head.weight"].equal(new["transformer.wte.weight"]):
            raise RuntimeError("not tied")
    model.load_state_dict(new, strict=True)


class Loader:
    def __call__(self, model: Any, weights: Weights) -> None:
        return day14.load_gpt2(model, weights)


RIGHT = [day14.load_gpt2, by_copy, and_tied_again, by_strict, Loader(), lambda m, w: day14.load_gpt2(m, dict(w))]


@pytest.mark.parametrize("learner", RIGHT, ids=lambda f: getattr(f, "__name__", type(f).__name__))
def test_loader_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day14", learner), said()
    assert said().startswith("day14: right. ")


def loader(
    *,
    turn: Callable[[str, Tensor], Tensor] = lambda n, w: w.t() if n.endswith(LINEAR) else w,
    mask: Callable[[str], bool] = lambda n: n.endswith((".attn.bias", ".attn.masked_bias")),
    name: Callable[[str], str] = lambda n: n if n.startswith(("transformer.", "lm_head.")) else "transformer." + n,
    head: bool = True,
    compare: bool = True,
    finish: Callable[[Any, Weights], Any] = lambda m, new: m.load_state_dict(new),
) -> Callable[[Any, Weights], None]:
    """The right loader with one part exchanged."""

    def load(model: Any, weights: Weights) -> None:
        new = {name(n): turn(n, w) for n, w in weights.items() if not mask(n)}
        if "transformer.wte.weight" in new and head:
            new.setdefault("lm_head.weight", new["transformer.wte.weight"])
        both = [new[n] for n in ("lm_head.weight", "transformer.wte.weight") if n in new]
        if compare and len(both) == 2 and not torch.equal(*both):
            raise ValueError("not tied")
        finish(model, new)

    return load


def by_shape(model: Any, weights: Weights) -> None:
    sd = model.state_dict()
    loader(turn=lambda n, w: w.t() if n in sd and sd[n].shape != w.shape else w)(model, weights)


def assign(model: Any, new: Weights) -> None:
    params = dict(model.named_parameters())
    for n, p in params.items():
        if n not in new:
            raise ValueError(f"missing {n}")
        p.data = new[n]
    if extra := [n for n in new if n not in params and n != "lm_head.weight"]:
        raise ValueError(f"unknown {extra}")


def untie(model: Any, new: Weights) -> None:
    model.load_state_dict(new)
    model.lm_head.weight = nn.Parameter(new["lm_head.weight"].clone())


def pops(model: Any, weights: Weights) -> None:
    for n in [n for n in weights if n.endswith((".attn.bias", ".attn.masked_bias"))]:
        weights.pop(n)
    weights.pop("lm_head.weight", None)
    loader()(model, weights)


def in_place(model: Any, weights: Weights) -> None:
    for n, w in weights.items():
        if n.endswith(LINEAR):
            w.t_()
    loader(turn=lambda n, w: w)(model, weights)


def replaces(model: Any, weights: Weights) -> None:
    for n in weights:
        if n.endswith(LINEAR):
            weights[n] = weights[n].t()
    loader(turn=lambda n, w: w)(model, weights)


def mute(model: Any, new: Weights) -> None:
    if set(new) != set(model.state_dict()):
        raise ValueError("This file does not fit the model.")
    model.load_state_dict(new)


def leftovers(model: Any, new: Weights) -> None:
    model.load_state_dict({n: new[n] for n in model.state_dict()})


def only_known(model: Any, new: Weights) -> None:
    if missing := [n for n in model.state_dict() if n not in new]:
        raise ValueError(f"missing {missing}")
    leftovers(model, new)


def nothing(model: Any, weights: Weights) -> None:
    pass


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "no transposition": (loader(turn=lambda n, w: w), "The shapes do not fit"),
    "everything transposed": (loader(turn=lambda n, w: w.t() if w.ndim == 2 else w), "wte and wpe are turned"),
    "by shape": (by_shape, "its matrix is square"),
    "all but the square one": (
        loader(turn=lambda n, w: w.t() if n.endswith(LINEAR) and w.shape[0] != w.shape[1] else w),
        "its matrix is square",
    ),
    "square tables too": (
        loader(turn=lambda n, w: w.t() if n.endswith(LINEAR) or (w.ndim == 2 and w.shape[0] == w.shape[1]) else w),
        "and it is a table: positions",
    ),
    "reshaped": (loader(turn=lambda n, w: w.reshape(w.shape[::-1]) if n.endswith(LINEAR) else w), "row by row"),
    "assigned without transposition": (loader(turn=lambda n, w: w, finish=assign), "as in the file"),
    "assigned": (loader(finish=assign), "uses the very tensors of the dict"),
    "mask without the dot": (loader(mask=lambda n: n.endswith(("attn.bias", "masked_bias")),
                                    finish=lambda m, new: m.load_state_dict(new, strict=False)),
                             "c_attn.bias was not loaded"),
    "masks not skipped": (loader(mask=lambda n: False), "that is a stored mask, not a parameter"),
    "strict=False": (loader(finish=lambda m, new: m.load_state_dict(new, strict=False)), "strict=False hides it"),
    "left-over names": (loader(finish=only_known), "left-over weights"),
    "no prefix": (loader(name=lambda n: n), "are not understood"),
    "no prefix, silent": (
        loader(name=lambda n: n, finish=lambda m, new: m.load_state_dict(new, strict=False)), "loads nothing at all"
    ),
    "prefix on the head": (
        loader(name=lambda n: n if n.startswith("transformer.") else "transformer." + n, head=False),
        "the head stands beside",
    ),
    "head wanted": (loader(head=False), "OpenAI's has none"),
    "untied": (loader(finish=untie), "a matrix of its own"),
    "other head accepted": (loader(compare=False), "one of the two matrices is silently lost"),
    "takes names out": (pops, "takes names out of it"),
    "turned in place": (in_place, "turned or changed in place"),
    "entries replaced": (replaces, "of the given dict was replaced"),
    "mute refusal": (loader(finish=mute), "does not contain that name"),
    "nothing loaded": (nothing, "does not hold the tensor of that name"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_loader_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day14", WRONG, mistake)


def test_loader_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day14", WRONG, least=14)
