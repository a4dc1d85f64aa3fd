"""Day 20: right answers pass in several styles, and each typical mistake gets its own sentence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse.checks import check

Say = Callable[[], str]
Pieces = list[tuple[Tensor, Tensor]]


def mean_loss(model: Any, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


def sum_loss(model: Any, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum")


# ---- day20 ---------------------------------------------------------------------------------------------------


def by_sums(model: Any, optimizer: Any, pieces: Pieces) -> float:
    n, total = sum(y.numel() for _, y in pieces), 0.0
    optimizer.zero_grad()
    for x, y in pieces:
        loss = sum_loss(model, x, y) / n
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def by_weighted_means(model: Any, optimizer: Any, pieces: Pieces) -> float:
    n = sum(y.numel() for _, y in pieces)
    losses = []
    model.zero_grad()
    for x, y in pieces:
        loss = mean_loss(model, x, y) * (y.numel() / n)
        losses.append(loss.detach())
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return torch.stack(losses).sum().item()


def scaled_afterwards(model: Any, optimizer: Any, pieces: Pieces) -> float:
    optimizer.zero_grad(set_to_none=False)
    total, n = 0.0, 0
    for x, y in pieces:
        loss = sum_loss(model, x, y)
        loss.backward()
        total, n = total + loss.item(), n + y.numel()
    for p in model.parameters():
        p.grad /= n
    optimizer.step()
    return total / n


def by_autograd_grad(model: Any, optimizer: Any, pieces: Pieces) -> float:
    params, n, total = list(model.parameters()), sum(y.numel() for _, y in pieces), 0.0
    sums = [torch.zeros_like(p) for p in params]
    for x, y in pieces:
        loss = sum_loss(model, x, y) / n
        for s, g in zip(sums, torch.autograd.grad(loss, params), strict=True):
            s += g
        total += loss.item()
    for p, s in zip(params, sums, strict=True):
        p.grad = s
    optimizer.step()
    return total


@pytest.mark.parametrize("learner", [by_sums, by_weighted_means, scaled_afterwards, by_autograd_grad])
def test_accumulate_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day20", learner), said()
    assert said().startswith("day20: right. ")


def variant(
    *,
    loss: Callable[[Any, Tensor, Tensor], Tensor] = mean_loss,
    divisor: Callable[[Pieces], float] = len,
    zero: str = "first",
    step: str = "last",
    result: str = "total",
) -> Callable[..., Any]:
    def learner(model: Any, optimizer: Any, pieces: Pieces) -> Any:
        total: Any = 0.0
        one: Any = None
        if zero == "first":
            optimizer.zero_grad()
        for x, y in pieces:
            if zero == "inside":
                optimizer.zero_grad()
            one = loss(model, x, y) / divisor(pieces)
            one.backward()
            total = total + (one if result == "tensor" else one.detach() if result == "detached" else one.item())
            if step == "inside":
                optimizer.step()
        if zero == "late":
            optimizer.zero_grad()
        if step == "last":
            optimizer.step()
        return {"none": None, "last": one.item(), "list": [total]}.get(result, total)

    return learner


def tokens(pieces: Pieces) -> int:
    return sum(y.numel() for _, y in pieces)


RIGHT = {"loss": sum_loss, "divisor": tokens}


def joined(model: Any, optimizer: Any, pieces: Pieces) -> float:
    x, y = (torch.cat([p[i].flatten() for p in pieces])[None] for i in (0, 1))
    return by_sums(model, optimizer, [(x, y)])


def all_graphs(model: Any, optimizer: Any, pieces: Pieces) -> float:
    optimizer.zero_grad()
    loss = sum((sum_loss(model, x, y) for x, y in pieces), torch.zeros(())) / tokens(pieces)
    loss.backward()
    optimizer.step()
    return loss.item()


def returns_inside(model: Any, optimizer: Any, pieces: Pieces) -> Any:
    optimizer.zero_grad()
    for x, y in pieces:
        loss = mean_loss(model, x, y)
        loss.backward()
        optimizer.step()
        return loss.item()


def forgets_backward(model: Any, optimizer: Any, pieces: Pieces) -> float:
    optimizer.zero_grad()
    total = sum(mean_loss(model, x, y).item() for x, y in pieces)
    optimizer.step()
    return total / len(pieces)


def last_piece(model: Any, optimizer: Any, pieces: Pieces) -> float:
    optimizer.zero_grad()
    for x, y in pieces:
        optimizer.zero_grad(set_to_none=False)
        loss = mean_loss(model, x, y)
        loss.backward()
    optimizer.step()
    return loss.item()


def counts_first(model: Any, optimizer: Any, pieces: Pieces) -> float:
    n = pieces[0][1].numel() * len(pieces)
    return float(variant(loss=sum_loss, divisor=lambda p: n)(model, optimizer, pieces))


WRONG_ACCUMULATE: dict[str, tuple[Callable[..., Any], str]] = {
    "not divided": (variant(divisor=lambda p: 1), "are added and not divided"),
    "sums not divided": (variant(loss=sum_loss, divisor=lambda p: 1), "added and divided by nothing"),
    "divided twice": (variant(divisor=lambda p: len(p) ** 2), "divided by the number of pieces twice"),
    "means divided by tokens": (variant(divisor=tokens), "is a mean already, and then"),
    "divided by the texts of a piece": (variant(divisor=lambda p: p[0][0].shape[0]), "number of texts in a piece"),
    "divided by the tokens of a piece": (variant(divisor=lambda p: p[0][1].numel()), "tokens in one piece"),
    "sums divided by the pieces": (variant(loss=sum_loss), "by the number of pieces only"),
    "some other factor": (variant(divisor=lambda p: 100), "times as long as it should be"),
    "mean of means": (variant(), "mean of the pieces' means: a token"),
    "all as large as the first": (counts_first, "to be as large as one of them"),
    "zero_grad inside": (last_piece, "zero_grad is called inside the loop"),
    "zero_grad late": (variant(**RIGHT, zero="late"), "zero_grad stands between"),
    "no zero_grad": (variant(**RIGHT, zero="never"), "What lay in p.grad before"),
    "step inside": (variant(**RIGHT, step="inside"), "step() was called 3 times"),
    "no step": (variant(**RIGHT, step="never"), "step() was never called"),
    "no backward": (forgets_backward, "There was no backward pass"),
    "first piece only": (returns_inside, "has seen 1 of 3 pieces"),
    "joined": (joined, "the pieces were joined"),
    "all graphs": (all_graphs, "several graphs are in memory"),
    "model not called": (lambda model, optimizer, pieces: 0.0, "The model was never called"),
    "returns None": (variant(**RIGHT, result="none"), "returned None: return the mean loss"),
    "keeps the graph": (variant(**RIGHT, result="tensor"), "still holds on to its graph"),
    "returns a tensor": (variant(**RIGHT, result="detached"), "the result is a tensor: return"),
    "returns a list": (variant(**RIGHT, result="list"), "of type list"),
    "returns the last": (variant(**RIGHT, result="last"), "the last piece's share"),
}


@pytest.mark.parametrize("mistake", WRONG_ACCUMULATE)
def test_accumulate_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day20", WRONG_ACCUMULATE, mistake)


def test_accumulate_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day20", WRONG_ACCUMULATE, least=20)


# ---- day20b --------------------------------------------------------------------------------------------------

PARTS = ("model", "optimizer", "batches", "random", "step")


def saves(model: Any, optimizer: Any, batches: Any, step: int) -> dict[str, Any]:
    return copy.deepcopy(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "batches": batches.get_state(),
         "random": torch.get_rng_state(), "step": step}
    )  # fmt: skip


def loader(without: tuple[str, ...] = (), step: Callable[[Any], Any] = lambda s: s["step"]) -> Callable[..., Any]:
    def loads(state: dict[str, Any], model: Any, optimizer: Any, batches: Any) -> Any:
        if "model" not in without:
            model.load_state_dict(state["model"])
        if "optimizer" not in without:
            optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        if "batches" not in without:
            batches.set_state(state["batches"])
        if "random" not in without:
            torch.set_rng_state(state["random"])
        return step(state)

    return loads


def saves_by_hand(model: Any, optimizer: Any, batches: Any, step: int) -> dict[str, Any]:
    clone = {k: v.detach().clone() for k, v in model.state_dict().items()}
    return {"w": clone, "o": copy.deepcopy(optimizer.state_dict()), "b": batches.get_state().clone(),
            "r": torch.random.get_rng_state(), "s": torch.tensor(step)}  # fmt: skip


def loads_by_hand(state: dict[str, Any], model: Any, optimizer: Any, batches: Any) -> int:
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(state["w"][name])
    optimizer.load_state_dict(copy.deepcopy(state["o"]))
    batches.set_state(state["b"])
    torch.random.set_rng_state(state["r"])
    return int(state["s"])


@pytest.mark.parametrize("pair", [(saves, loader()), [saves_by_hand, loads_by_hand]], ids=["usual", "by hand"])
def test_resume_passes_in_any_style(pair: Any, said: Say) -> None:
    assert check("day20b", pair), said()
    assert said().startswith("day20b: right. ")


def live_weights(model: Any, optimizer: Any, batches: Any, step: int) -> dict[str, Any]:
    return saves(model, optimizer, batches, step) | {"model": model.state_dict()}


def live_moments(model: Any, optimizer: Any, batches: Any, step: int) -> dict[str, Any]:
    return saves(model, optimizer, batches, step) | {"optimizer": optimizer.state_dict()}


def whole_objects(model: Any, optimizer: Any, batches: Any, step: int) -> dict[str, Any]:
    return saves(model, optimizer, batches, step) | {"model": model}


def returns_nothing(model: Any, optimizer: Any, batches: Any, step: int) -> None:
    saves(model, optimizer, batches, step)


def reseeds(model: Any, optimizer: Any, batches: Any, step: int) -> dict[str, Any]:
    batches.manual_seed(0)
    return saves(model, optimizer, batches, step)


def draws_on_load(state: dict[str, Any], model: Any, optimizer: Any, batches: Any) -> Any:
    step = loader()(state, model, optimizer, batches)
    torch.rand(1)
    return step


def loads_uncopied(state: dict[str, Any], model: Any, optimizer: Any, batches: Any) -> Any:
    optimizer.load_state_dict(state["optimizer"])
    return loader(("optimizer",))(state, model, optimizer, batches)


def stub(state: Any, model: Any, optimizer: Any, batches: Any) -> int:
    raise NotImplementedError


WRONG_RESUME: dict[str, tuple[Any, str]] = {
    "no weights": ((saves, loader(("model",))), "The parameters differ from those that were saved: model.state_dict"),
    "no optimizer": ((saves, loader(("optimizer",))), "The optimizer begins with empty averages or other ones: opt"),
    "no batches": ((saves, loader(("batches",))), "other batches come"),
    "no global generator": ((saves, loader(("random",))), "dropout draws other zeros"),
    "no step": ((saves, loader(step=lambda s: None)), "load_state returned None"),
    "step 0": ((saves, loader(step=lambda s: 0)), "returned the step 0 and"),
    "step off by one": ((saves, loader(step=lambda s: s["step"] + 1)), "returned the step 7 and"),
    "live weights": ((live_weights, loader()), "kept in memory while training goes on, the parameters"),
    "live moments": ((live_moments, loader()), "kept in memory while training goes on, the optimizer"),
    "load without a copy": ((saves, loads_uncopied), "The first load took over tensors of your dict"),
    "whole objects": ((whole_objects, loader()), "holds whole objects (Sequential)"),
    "save returns None": ((returns_nothing, loader()), "of type NoneType"),
    "save reseeds": ((reseeds, loader()), "changes the run that it saves"),
    "not a pair": (saves, "It wants both functions, in brackets"),
}


@pytest.mark.parametrize("mistake", WRONG_RESUME)
def test_resume_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day20b", WRONG_RESUME, mistake)


def test_resume_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day20b", WRONG_RESUME, least=12)


def test_a_draw_after_loading_is_noticed(said: Say) -> None:
    assert not check("day20b", (saves, draws_on_load))
    assert "dropout draws other zeros" in said()


def test_a_stub_is_named(said: Say) -> None:
    assert not check("day20b", (saves, stub))
    assert "load_state still raises NotImplementedError" in said()
