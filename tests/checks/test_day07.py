"""Day 7: a training loop passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from llmcourse import data, evaluation
from llmcourse.checks import check

Say = Callable[[], str]


def draw(ids: Tensor, batch_size: int, block_size: int, ahead: int = 1) -> tuple[Tensor, Tensor]:
    start = torch.randint(len(ids) - block_size - ahead + 1, (batch_size, 1))
    window = ids[start + torch.arange(block_size + ahead)]
    return window[:, :block_size], window[:, ahead:]


def validate(model: Any, ids: Tensor, T: int) -> float:
    model.eval()
    with torch.no_grad():
        return F.cross_entropy(model(ids[:-1].view(-1, T)).flatten(0, 1), ids[1:]).item()


def loop(
    *,
    batch: Callable[..., tuple[Tensor, Tensor]] = lambda train, val, B, T, step: draw(train, B, T),
    loss_of: Callable[[Tensor, Tensor], Tensor] = lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten()),
    order: str = "zbs",
    make: Callable[..., Any] = torch.optim.AdamW,
    rate: Callable[[float], float] = lambda lr: lr,
    count: Callable[[int], int] = lambda steps: steps,
    anew: bool = False,
    mode: bool = True,
    keep: Callable[[Tensor], Any] = lambda loss: loss.item(),
    end: Callable[..., Any] = lambda model, train, val, T, losses: (losses, validate(model, val, T)),
) -> Callable[..., Any]:
    """A loop with one part exchanged. `order`: z zero_grad, b backward, s step."""

    def train(model, train_ids, val_ids, steps, batch_size, block_size, lr):  # type: ignore[no-untyped-def]
        optimizer = make(model.parameters(), lr=rate(lr))
        if mode:
            model.train()
        losses = []
        for step in range(count(steps)):
            if anew:
                optimizer = make(model.parameters(), lr=rate(lr))
            x, y = batch(train_ids, val_ids, batch_size, block_size, step)
            loss = loss_of(model(x), y)
            do = {"z": optimizer.zero_grad, "b": loss.backward, "s": optimizer.step}
            for letter in order:
                do[letter]()
            losses.append(keep(loss))
        return end(model, train_ids, val_ids, block_size, losses)

    return train


def with_loader(model, train_ids, val_ids, steps, batch_size, block_size, lr):  # type: ignore[no-untyped-def]
    """A DataLoader that shuffles, and a validation loss from the course's own function."""
    loader = DataLoader(data.TextDataset(train_ids, block_size), batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1, betas=(0.9, 0.95))
    losses: list[float] = []
    model.train()
    while len(losses) < steps:
        for x, y in loader:
            loss = nn.CrossEntropyLoss()(model(x).transpose(1, 2), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
            losses.append(float(loss.detach()))
            if len(losses) == steps:
                break
    val_loss = evaluation.evaluate(model, val_ids, block_size)
    model.eval()
    return losses, val_loss


def with_stack(model, train_ids, val_ids, steps, batch_size, block_size, lr):  # type: ignore[no-untyped-def]
    """Windows cut one by one, evaluations on the way, the loss written out."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=lr), []
    generator = torch.Generator().manual_seed(7)
    for step in range(steps):
        model.train()
        starts = torch.randint(0, len(train_ids) - block_size, (batch_size,), generator=generator)
        x = torch.stack([train_ids[i : i + block_size] for i in starts])
        y = torch.stack([train_ids[i + 1 : i + block_size + 1] for i in starts])
        log_probs = model(x).log_softmax(-1)
        loss = -log_probs.gather(-1, y.unsqueeze(-1)).mean()
        for p in model.parameters():
            p.grad = None
        loss.backward()
        optimizer.step()
        losses += [loss.item()]
        if step % 4 == 0:
            validate(model, val_ids, block_size)
    model.eval()
    total, n = 0.0, len(val_ids) - 1
    with torch.inference_mode():
        for i in range(0, n, block_size):
            logits = model(val_ids[None, i : i + block_size])[0]
            total += F.cross_entropy(logits, val_ids[i + 1 : i + block_size + 1], reduction="sum").item()
    return [losses, total / n]


class Loop:
    """An object that can be called."""

    def __call__(self, *args: Any) -> Any:
        return loop(order="bsz")(*args)


STYLES = {"plain": loop(), "loader": with_loader, "stack": with_stack, "object": Loop()}


@pytest.mark.parametrize("learner", STYLES.values(), ids=STYLES)
def test_train_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day07", learner), said()
    assert said().startswith("day07: right. ")


def mean_loss(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z.flatten(0, 1), y.flatten())


def rolled(train: Tensor, val: Tensor, B: int, T: int, step: int) -> tuple[Tensor, Tensor]:
    x, _ = draw(train, B, T)
    return x, x.roll(-1, dims=1)


def backwards(train: Tensor, val: Tensor, B: int, T: int, step: int) -> tuple[Tensor, Tensor]:
    x, y = draw(train, B, T)
    return y, x


def seeded(train: Tensor, val: Tensor, B: int, T: int, step: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1337)
    return draw(train, B, T)


def in_order(train: Tensor, val: Tensor, B: int, T: int, step: int) -> tuple[Tensor, Tensor]:
    start = step * B + torch.arange(B)[:, None]
    window = train[start + torch.arange(T + 1)]
    return window[:, :-1], window[:, 1:]


def shuffled_tokens(train: Tensor, val: Tensor, B: int, T: int, step: int) -> tuple[Tensor, Tensor]:
    i = torch.randint(len(train) - 1, (B, T))
    return train[i], train[i + 1]


def one_short(train: Tensor, val: Tensor, B: int, T: int, step: int) -> tuple[Tensor, Tensor]:
    x, _ = draw(train, B, T)
    return x[:, :-1], x[:, 1:]


def only_beginning(train: Tensor, val: Tensor, B: int, T: int, step: int) -> tuple[Tensor, Tensor]:
    return draw(train[: T + 12], B, T)


def past_the_end(train: Tensor, val: Tensor, B: int, T: int, step: int) -> tuple[Tensor, Tensor]:
    window = train[torch.randint(len(train), (B, 1)) + torch.arange(T + 1)]
    return window[:, :-1], window[:, 1:]


def short_at_the_end(train: Tensor, val: Tensor, B: int, T: int, step: int) -> tuple[Tensor, Tensor]:
    rows = [train[i : i + T + 1] for i in torch.randint(len(train), (B,))]
    window = torch.stack(rows)
    return window[:, :-1], window[:, 1:]


def other_text(train: Tensor, val: Tensor, B: int, T: int, step: int) -> tuple[Tensor, Tensor]:
    return draw(torch.randint(65, (500,)), B, T)


def on_a_copy(model, train_ids, val_ids, steps, batch_size, block_size, lr):  # type: ignore[no-untyped-def]
    optimizer, losses = torch.optim.AdamW(nn.Linear(2, 2).parameters(), lr=lr), []
    model.train()
    for _ in range(steps):
        x, y = draw(train_ids, batch_size, block_size)
        loss = mean_loss(model(x), y)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, validate(model, val_ids, block_size)


def another_model(model, train_ids, val_ids, steps, batch_size, block_size, lr):  # type: ignore[no-untyped-def]
    own = nn.Sequential(nn.Embedding(13, 8), nn.Linear(8, 13))
    return loop()(own, train_ids, val_ids, steps, batch_size, block_size, lr)


def one_forward(model, train_ids, val_ids, steps, batch_size, block_size, lr):  # type: ignore[no-untyped-def]
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    x, y = draw(train_ids, batch_size, block_size)
    loss = mean_loss(model(x), y)
    for _ in range(steps):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [loss.item()] * steps, validate(model, val_ids, block_size)


def by_hand(model, train_ids, val_ids, steps, batch_size, block_size, lr):  # type: ignore[no-untyped-def]
    losses = []
    model.train()
    for _ in range(steps):
        x, y = draw(train_ids, batch_size, block_size)
        loss = mean_loss(model(x), y)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad
        losses.append(loss.item())
    return losses, validate(model, val_ids, block_size)


def without_grad(model, train_ids, val_ids, steps, batch_size, block_size, lr):  # type: ignore[no-untyped-def]
    with torch.no_grad():
        logits = model(draw(train_ids, batch_size, block_size)[0])
    mean_loss(logits, draw(train_ids, batch_size, block_size)[1]).backward()


def eval_inside(model, train_ids, val_ids, steps, batch_size, block_size, lr):  # type: ignore[no-untyped-def]
    def batch(train: Tensor, val: Tensor, B: int, T: int, step: int) -> tuple[Tensor, Tensor]:
        if step == 3:
            validate(model, val, T)  # leaves it in evaluation mode
        return draw(train, B, T)

    return loop(batch=batch)(model, train_ids, val_ids, steps, batch_size, block_size, lr)


def validated_early(model, train_ids, val_ids, steps, batch_size, block_size, lr):  # type: ignore[no-untyped-def]
    early = validate(model, val_ids, block_size)

    def end(model: Any, train: Tensor, val: Tensor, T: int, losses: list[float]) -> Any:
        model.eval()
        return losses, early

    return loop(end=end)(model, train_ids, val_ids, steps, batch_size, block_size, lr)


def in_training_mode(model: Any, train: Tensor, val: Tensor, T: int, losses: list[float]) -> Any:
    with torch.no_grad():
        val_loss = mean_loss(model(val[:-1].view(-1, T)), val[1:].view(-1, T)).item()
    model.eval()
    return losses, val_loss


def with_graph(model: Any, train: Tensor, val: Tensor, T: int, losses: list[float]) -> Any:
    model.eval()
    return losses, mean_loss(model(val[:-1].view(-1, T)), val[1:].view(-1, T)).item()


def val_summed(model: Any, train: Tensor, val: Tensor, T: int, losses: list[float]) -> Any:
    return losses, validate(model, val, T) * (len(val) - 1)


def val_unshifted(model: Any, train: Tensor, val: Tensor, T: int, losses: list[float]) -> Any:
    model.eval()
    with torch.no_grad():
        x = val[:-1].view(-1, T)
        return losses, mean_loss(model(x), x).item()


def val_of_one_batch(model: Any, train: Tensor, val: Tensor, T: int, losses: list[float]) -> Any:
    return losses, validate(model, val[: 3 * T + 1], T)


def val_on_train(model: Any, train: Tensor, val: Tensor, T: int, losses: list[float]) -> Any:
    return losses, validate(model, train[: 6 * T + 1], T)


def last_loss(model: Any, train: Tensor, val: Tensor, T: int, losses: list[float]) -> Any:
    validate(model, val, T)
    return losses, losses[-1]


def no_validation(model: Any, train: Tensor, val: Tensor, T: int, losses: list[float]) -> Any:
    model.eval()
    return losses, losses[-1]


def tensor_val_loss(model: Any, train: Tensor, val: Tensor, T: int, losses: list[float]) -> Any:
    return losses, torch.tensor(validate(model, val, T))


def back_to_training(model: Any, train: Tensor, val: Tensor, T: int, losses: list[float]) -> Any:
    val_loss = validate(model, val, T)
    model.train()
    return losses, val_loss


WRONG_TRAIN: dict[str, tuple[Callable[..., Any], str]] = {
    "returns nothing": (loop(end=lambda *a: None), "returned None"),
    "no zero_grad": (loop(order="bs"), "optimizer.zero_grad() is missing"),
    "step before backward": (loop(order="zsb"), "step() comes before loss.backward()"),
    "stale gradient": (loop(order="szb"), "step() comes before loss.backward()"),
    "zero_grad after backward": (loop(order="bzs"), "zero_grad() stands between"),
    "no backward": (loop(order="zs"), "backward() is never called"),
    "no step": (loop(order="zb"), "optimizer.step() is never called"),
    "not shifted": (loop(batch=lambda t, v, B, T, s: (draw(t, B, T)[0],) * 2), "not shifted"),
    "shifted back": (loop(batch=backwards), "shifted the wrong way"),
    "shifted twice": (loop(batch=lambda t, v, B, T, s: draw(t, B, T, ahead=2)), "two tokens ahead"),
    "rolled": (loop(batch=rolled), "roll goes round in a circle"),
    "zero targets": (loop(batch=lambda t, v, B, T, s: (draw(t, B, T)[0], torch.zeros(B, T).long())), "Every target is"),
    "random targets": (loop(batch=lambda t, v, B, T, s: (draw(t, B, T)[0], draw(t, B, T)[1])), "not the tokens that"),
    "transposed": (loop(loss_of=lambda z, y: F.cross_entropy(z.flatten(0, 1), y.T.flatten())), "in different orders"),
    "softmax twice": (loop(loss_of=lambda z, y: mean_loss(z.softmax(-1), y)), "A softmax stands before"),
    "squared error": (
        loop(loss_of=lambda z, y: (z.softmax(-1) - F.one_hot(y, 13)).square().mean()), "not the cross-entropy"
    ),
    "sum": (loop(loss_of=lambda z, y: mean_loss(z, y) * y.numel()), "sum over all positions"),
    "times T": (loop(loss_of=lambda z, y: mean_loss(z, y) * z.shape[1]), "times the mean over"),
    "last position": (loop(loss_of=lambda z, y: F.cross_entropy(z[:, -1], y[:, -1])), "the last position of each"),
    "not the first": (loop(loss_of=lambda z, y: mean_loss(z[:, 1:], y[:, 1:])), "positions of a batch enter the loss"),
    "not flattened": (loop(loss_of=lambda z, y: F.cross_entropy(z, y)), "join batch and time first"),
    "half flattened": (loop(loss_of=lambda z, y: F.cross_entropy(z[:, 0], y.flatten())), "flatten both in"),
    "view": (loop(loss_of=lambda z, y: F.cross_entropy(z.view(-1, 13), y.view(-1))), ".view() fails on a slice"),
    "detached": (loop(loss_of=lambda z, y: mean_loss(z.detach(), y)), "finds no way back"),
    "no_grad": (without_grad, "finds no way back"),
    "one forward": (one_forward, "a second time through"),
    "trains on val": (loop(batch=lambda t, v, B, T, s: draw(v, B, T)), "windows of val_ids"),
    "the page's text": (loop(batch=other_text), "in neither text"),
    "same batch": (loop(batch=seeded), "same batch"),
    "in order": (loop(batch=in_order), "come in order"),
    "tokens, not windows": (loop(batch=shuffled_tokens), "not windows of train_ids"),
    "T, B": (loop(batch=lambda t, v, B, T, s: tuple(z.T for z in draw(t, B, T))), "which is (T, B)"),
    "one short": (loop(batch=one_short), "one too few"),
    "one window": (loop(batch=lambda t, v, B, T, s: draw(t, 1, T)), "but (batch_size, block_size) is"),
    "beginning": (loop(batch=only_beginning), "first part of train_ids"),
    "past the end": (loop(batch=past_the_end), "runs past the end"),
    "short at the end": (loop(batch=short_at_the_end), "came out too short"),
    "floats": (loop(batch=lambda t, v, B, T, s: tuple(z.float() for z in draw(t, B, T))), "int64"),
    "SGD": (loop(make=torch.optim.SGD), "The optimizer is SGD"),
    "own learning rate": (loop(rate=lambda lr: 3e-4), "learning rate is 0.0003"),
    "new optimizer": (loop(anew=True), "new optimizer is made in every step"),
    "other parameters": (on_a_copy, "not on the weights of the model"),
    "another model": (another_model, "is the loop empty"),
    "by hand": (by_hand, "moved by hand"),
    "one step more": (loop(count=lambda steps: steps + 1), "and it was asked for steps"),
    "eval mode": (loop(mode=False), "trains in it"),
    "eval mode later": (eval_inside, "After some steps"),
    "left in training mode": (loop(end=back_to_training), "left in training mode"),
    "only losses": (loop(end=lambda m, t, v, T, losses: (validate(m, v, T), losses)[1]), "It returns a list of"),
    "only the last": (loop(end=lambda m, t, v, T, losses: validate(m, v, T)), "It returns one number"),
    "tensors": (loop(keep=lambda loss: loss), "losses holds tensors"),
    "first loss only": (loop(end=lambda m, t, v, T, losses: (losses[:1], validate(m, v, T))), "entries for"),
    "one loss": (loop(end=lambda m, t, v, T, losses: (losses[-1], validate(m, v, T))), "must be a list of numbers"),
    "perplexities": (loop(keep=lambda loss: math.exp(loss.item())), "the mean loss of that batch was"),
    "no validation": (loop(end=no_validation), "never sees val_ids"),
    "validation too early": (validated_early, "before the last step"),
    "validation in training mode": (loop(end=in_training_mode), "measured in training mode"),
    "validation with graph": (loop(end=with_graph), "put torch.no_grad() there"),
    "validation on train": (loop(end=val_on_train), "was not measured on val_ids"),
    "validation summed": (loop(end=val_summed), "divide it by their number"),
    "validation not shifted": (loop(end=val_unshifted), "In the validation the targets"),
    "validation is a training loss": (loop(end=last_loss), "val_loss is a training loss"),
    "validation on one batch": (loop(end=val_of_one_batch), "score each token once"),
    "validation as a tensor": (loop(end=tensor_val_loss), "must be a plain number"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG_TRAIN)
def test_train_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day07", WRONG_TRAIN, mistake)


def test_train_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day07", WRONG_TRAIN, least=30)


def returns_in_the_loop(model, train_ids, val_ids, steps, batch_size, block_size, lr):  # type: ignore[no-untyped-def]
    one = loop(count=lambda _: 1)
    return one(model, train_ids, val_ids, steps, batch_size, block_size, lr)


def test_a_return_inside_the_loop_is_guessed(said: Say) -> None:
    assert not check("day07", returns_in_the_loop)
    assert "Is the return inside the loop?" in said()


def sizes_of_the_first_job(model, train_ids, val_ids, steps, batch_size, block_size, lr):  # type: ignore[no-untyped-def]
    return loop()(model, train_ids, val_ids, steps, 4, 7, lr)


def test_fixed_sizes_are_found(said: Say) -> None:
    assert not check("day07", sizes_of_the_first_job)
    assert "fails for 3 and 10" in said()


def test_the_hook_is_gone_afterwards() -> None:
    from torch.optim import optimizer

    before = copy.copy(optimizer._global_optimizer_pre_hooks)
    check("day07", loop())
    check("day07", loop(order="zs"))
    assert optimizer._global_optimizer_pre_hooks == before
