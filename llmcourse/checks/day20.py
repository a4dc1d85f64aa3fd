"""Checkers of day 20: gradient accumulation, and a state from which training goes on bit for bit.

Both watch from outside. The model of the first notes every forward and backward pass, and its optimizer is plain SGD,
so that the weights before and after give the gradient back. The second compares, piece by piece, what a fresh run holds
after `load_state` with what the uninterrupted one held.
"""

import copy
import io
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import Wrong, blame, exercise, load_optimizers

V, C = 7, 6
Pieces = list[tuple[Tensor, Tensor]]
RATE = 0.5
load_optimizers()  # not within the time limit


# ---- day20: accumulation -------------------------------------------------------------------------------------


def accumulate(model: nn.Module, optimizer: torch.optim.Optimizer, pieces: Pieces) -> float:
    """One update from all `pieces`, each token counting the same; the mean loss per token."""
    tokens = sum(y.numel() for _, y in pieces)
    optimizer.zero_grad()
    total = 0.0
    for x, y in pieces:
        logits = model(x)  # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / tokens
        loss.backward()  # adds this piece's share to p.grad, and frees its graph
        total += loss.item()
    optimizer.step()
    return total


class Watched(nn.Module):
    """A table of pairs with a hidden layer that notes who passes, forward ("f") and backward ("b")."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(V, C), nn.Linear(C, V)
        self.events: list[str] = []
        self.sizes: list[int] = []

    def forward(self, idx: Tensor) -> Tensor:
        self.events.append("f")
        self.sizes.append(idx.numel())
        logits: Tensor = self.out(self.embed(idx).tanh())
        if logits.requires_grad:
            logits.register_hook(lambda grad: self.events.append("b"))
        return logits


class Counted(torch.optim.SGD):
    """SGD that notes its calls in the model's list: "s" for a step, "z" for a zero_grad."""

    def __init__(self, model: Watched) -> None:
        super().__init__(model.parameters(), lr=RATE)
        self.events = model.events

    def step(self, closure: Any = None) -> Any:
        self.events.append("s")
        return super().step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.events.append("z")
        super().zero_grad(set_to_none)


def make_pieces(shapes: Iterable[tuple[int, int]]) -> Pieces:
    return [(torch.randint(V, s), torch.randint(V, s)) for s in shapes]


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


def gradients(model: nn.Module, pieces: Pieces) -> list[Tensor]:
    """The gradient of each piece's mean loss, flat."""
    out = []
    for x, y in pieces:
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        out.append(flat(torch.autograd.grad(loss, list(model.parameters()))))
    return out


class Trial:
    """One call of the learner's function: the update it made, as a gradient, and what it returned."""

    def __init__(self, learner: Callable[..., Any], shapes: list[tuple[int, int]], stale: bool = True) -> None:
        torch.manual_seed(3)
        self.model = Watched()
        self.pieces = make_pieces(shapes)
        before = flat(self.model.parameters())
        self.singles = gradients(self.model, self.pieces)
        self.losses = torch.stack([self.loss(x, y) for x, y in self.pieces])
        self.tokens = torch.tensor([float(y.numel()) for _, y in self.pieces])
        self.stale = torch.zeros_like(before)
        if stale:  # what an earlier update may have left in p.grad
            for p in self.model.parameters():
                p.grad = torch.full_like(p, 0.3)
            self.stale += 0.3
        self.model.events.clear()
        self.model.sizes.clear()
        handed = [(x.clone(), y.clone()) for x, y in self.pieces]
        self.result = learner(self.model, Counted(self.model), handed)
        self.moved = (before - flat(self.model.parameters())) / RATE
        self.events = "".join(self.model.events)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return F.cross_entropy(self.model(x).flatten(0, 1), y.flatten())

    def right(self) -> Tensor:
        share = self.tokens / self.tokens.sum()
        return sum((w * g for w, g in zip(share, self.singles, strict=True)), torch.zeros_like(self.moved))

    def is_move(self, gradient: Tensor) -> bool:
        return torch.allclose(self.moved, gradient, rtol=1e-3, atol=1e-5)


@exercise(
    "day20",
    title="One update from many pieces",
    signature="accumulate(model, optimizer, pieces)",
    hints=[
        "zero_grad once, before the first piece; then forward and backward for each piece, which adds to p.grad; then "
        "one step, after the last.",
        "What must each piece's loss be divided by? Not by the number of pieces: by the number of tokens that all "
        "pieces have together, sum(y.numel() for _, y in pieces). Then the loss of a piece must be a sum over its "
        "tokens.",
        'loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum") / tokens; loss.backward(); '
        "total += loss.item().",
    ],
    solution=accumulate,
    right="One update, one graph in memory at a time, and every token counts the same.",
)
def check_accumulate(learner: Callable[..., Any]) -> None:
    even = Trial(learner, [(2, 4)] * 3)
    judge_events(even, 3)
    judge_gradient(even)
    with blame("It works for pieces of one shape, but fails when they differ"):
        uneven = Trial(learner, [(3, 5), (2, 5), (1, 2)])
    judge_gradient(uneven)
    judge_result(even, uneven)
    with blame("It works for three pieces, but fails for a single one"):
        judge_gradient(Trial(learner, [(2, 3)]))
    with blame("It works for three pieces, but fails for five"):
        judge_gradient(Trial(learner, [(1, 4)] * 4 + [(1, 1)], stale=False))


def judge_events(trial: Trial, n: int) -> None:
    """Who called what, and when; before any number is looked at."""
    events, sizes = trial.events, trial.model.sizes
    if "f" not in events:
        raise Wrong("The model was never called: logits = model(x) for each piece.")
    if max(sizes) > max(int(t) for t in trial.tokens):
        raise Wrong(
            f"The model was given {max(sizes)} tokens at once, more than any piece has: the pieces were joined, and "
            "that batch is the one that does not fit into memory."
        )
    if "b" not in events:
        raise Wrong("There was no backward pass: call loss.backward() for each piece.")
    steps = events.count("s")
    if steps == 0:
        raise Wrong("optimizer.step() was never called, so that no weight has moved.")
    if steps > 1:
        raise Wrong(f"optimizer.step() was called {steps} times: it is one update, after the last piece.")
    if events.count("f") < n:
        raise Wrong(f"The model has seen {events.count('f')} of {n} pieces: does a return stand inside the loop?")
    if "ff" in events.replace("z", "").replace("s", ""):
        raise Wrong(
            "A second piece went forward before the first had gone backward, so that several graphs are in memory at "
            "once: call backward() inside the loop, for each piece."
        )
    if events.rstrip("z").endswith("b") or events.find("s") < events.rfind("b"):
        raise Wrong("A piece went backward after optimizer.step(): its gradient comes too late for this update.")


def judge_gradient(trial: Trial) -> None:
    """Raise the Wrong that fits an update that is not the right one."""
    right, singles, events = trial.right(), torch.stack(trial.singles), trial.events
    if trial.is_move(right):
        return
    n, tokens = len(singles), trial.tokens
    total = tokens.sum()
    mean, plain = singles.mean(0), singles.sum(0)
    summed = (tokens[:, None] * singles).sum(0)
    if not trial.moved.isfinite().all():
        raise Wrong("The update is not finite: is something divided by 0?")
    if trial.moved.abs().max() == 0:
        raise Wrong(
            "No weight has moved: zero_grad stands between the last backward() and step(), and threw the gradients "
            "away."
        )
    if "z" in events[events.find("b") : events.rfind("b")]:
        raise Wrong(
            "zero_grad is called inside the loop, between the pieces, so that only the last one counts: call it once, "
            "before the first."
        )
    if trial.stale.any():
        for g in (right, mean, plain, summed):
            if trial.is_move(g + trial.stale):
                raise Wrong(
                    "What lay in p.grad before your function began is in the update too: call optimizer.zero_grad() "
                    "first."
                )
    if torch.allclose(tokens, tokens[:1]):
        per_piece = float(tokens[0])
        known = [
            (plain, "The losses of the pieces are added and not divided: the update is as many times too large as "
                    "there are pieces."),
            (summed, "The losses of all tokens are added and divided by nothing: the update is as many times too large "
                     "as there are tokens."),
            (mean / n, "It is divided by the number of pieces twice: once in the loss, and once more."),
            (mean / per_piece, "Each piece's loss is a mean already, and then it is divided by the number of all "
                               'tokens: either reduction="sum", or weigh the means.'),
            (plain / per_piece, "Divided by the number of tokens in one piece, or of the last: it should be that of "
                                "all pieces together."),
            (summed / n, "The sums over the tokens are divided by the number of pieces only, not by the tokens."),
            (singles[-1], "Only the last piece counts in the update."),
            (singles[-1] / n, "Only the last piece counts in the update, and even that is divided."),
        ]  # fmt: skip
        rows = {int(x.shape[0]) for x, _ in trial.pieces}
        texts = "Divided by the number of texts in a piece: it should be a number of tokens, that of all pieces."
        known += [(plain / r, texts) for r in rows if r not in (1, n)]
        for gradient, sentence in known:
            if trial.is_move(gradient):
                raise Wrong(sentence)
        scale = float((trial.moved @ right) / (right @ right))
        if torch.allclose(trial.moved, scale * right, rtol=1e-2, atol=1e-5):
            raise Wrong(f"The direction of the update is right, but it is {scale:.3g} times as long as it should be.")
        if trial.stale.any() and not trial.events.startswith("z"):
            raise Wrong("zero_grad was not called before the first piece: the old gradients are in the update.")
        raise Wrong("The update is not the one of the large batch, for pieces of one size.")
    if trial.is_move(mean):
        raise Wrong(
            "For pieces of one size it is right, but here they differ, and it takes the mean of the pieces' means: a "
            "token of a small piece counts more than one of a large piece. Divide by the tokens of all pieces."
        )
    first, last = tokens[0], tokens[-1]
    for wrong in (first, last):
        if trial.is_move(summed / (wrong * n)):
            raise Wrong("It takes all pieces to be as large as one of them: count the tokens of each, y.numel().")
    scale = float((trial.moved @ right) / (right @ right))
    if torch.allclose(trial.moved, scale * right, rtol=1e-2, atol=1e-5):
        raise Wrong(
            f"For pieces of one size it is right; when they differ, the update is {scale:.3g} times as long as it "
            f"should be: divide by {total:.0f}, the tokens of all pieces."
        )
    raise Wrong("For pieces of one size it is right, but not when they differ: every token should count the same.")


def judge_result(even: Trial, uneven: Trial) -> None:
    """The number that is returned."""
    result = even.result
    if result is None:
        raise Wrong("The update is right, but the function returned None: return the mean loss.")
    if isinstance(result, Tensor):
        if result.requires_grad:
            raise Wrong(
                "The update is right, but the result is a tensor that still holds on to its graph: add loss.item(), a "
                "plain number."
            )
        raise Wrong("The update is right, but the result is a tensor: return a Python number, with .item().")
    if not isinstance(result, float):
        raise Wrong(f"The update is right, but the result is of type {type(result).__name__}: return one number.")
    for trial in (even, uneven):
        share = trial.tokens / trial.tokens.sum()
        wanted, got = float((share * trial.losses).sum()), trial.result
        if abs(got - wanted) < 1e-4 * max(1.0, wanted):
            continue
        n = len(trial.losses)
        named = {
            "the loss of the last piece": float(trial.losses[-1]),
            "the last piece's share": float(share[-1] * trial.losses[-1]),
            "the sum of the pieces' means, not divided": float(trial.losses.sum()),
            "the sum over all tokens, not divided": float((trial.tokens * trial.losses).sum()),
            "the mean of the pieces' means, though the pieces differ": float(trial.losses.mean()),
            "the mean loss divided by the number of pieces once more": wanted / n,
        }
        for what, value in named.items():
            if abs(got - value) < 1e-4 * max(1.0, value):
                raise Wrong(f"The update is right, but the number returned is {what}: it should be the mean per token.")
        raise Wrong("The update is right, but the number returned is not the mean loss per token.")


# ---- day20b: save and resume ---------------------------------------------------------------------------------


def save_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: torch.Generator, step: int
) -> dict[str, Any]:
    """A copy of everything that changes from step to step."""
    return copy.deepcopy(
        {
            "model": model.state_dict(),  # the live tensors: hence the deepcopy
            "optimizer": optimizer.state_dict(),
            "batches": batches.get_state(),
            "random": torch.get_rng_state(),  # draws dropout
            "step": step,
        }
    )


def load_state(
    state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, batches: torch.Generator
) -> int:
    """Put `state` into a fresh model, optimizer and generator; returns the step."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
    batches.set_state(state["batches"])
    torch.set_rng_state(state["random"])
    return int(state["step"])


SOLUTION = '''def save_state(model, optimizer, batches, step):
    """A copy of everything that changes from step to step."""
    return copy.deepcopy({
        "model": model.state_dict(),  # the live tensors: hence the deepcopy
        "optimizer": optimizer.state_dict(),
        "batches": batches.get_state(),
        "random": torch.get_rng_state(),  # draws dropout
        "step": step,
    })

def load_state(state, model, optimizer, batches):
    """Put `state` into a fresh model, optimizer and generator; returns the step."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
    batches.set_state(state["batches"])
    torch.set_rng_state(state["random"])
    return state["step"]
'''


class Run:
    """A run of a tiny model with dropout and a schedule, so that each part of its state matters."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Embedding(V, C), nn.Dropout(0.3), nn.Linear(C, V))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.batches = torch.Generator().manual_seed(seed)
        self.step = 0

    def go(self, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            for group in self.optimizer.param_groups:
                group["lr"] = 0.05 / (1 + self.step)
            x, y = torch.randint(V, (2, 16), generator=self.batches)
            loss = F.cross_entropy(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1
            losses.append(loss.item())
        return losses

    def held(self) -> dict[str, Any]:
        return save_state(self.model, self.optimizer, self.batches, self.step)

    def save(self, learner: Callable[..., Any]) -> Any:
        return written("save_state", learner, self.model, self.optimizer, self.batches, self.step)

    def load(self, learner: Callable[..., Any], state: Any) -> Any:
        return written("load_state", learner, state, self.model, self.optimizer, self.batches)


def written(name: str, learner: Callable[..., Any], *arguments: Any) -> Any:
    """The learner's result; a stub is named, since what is handed in has two functions."""
    try:
        return learner(*arguments)
    except NotImplementedError as e:
        raise Wrong(f"{name} still raises NotImplementedError: replace that line with your code.") from e


@exercise(
    "day20b",
    title="Save and resume",
    signature="(save_state, load_state)",
    hints=[
        "Five things change from step to step: the model's tensors, the optimizer's averages, the generator of the "
        "batches, PyTorch's global generator (dropout), and the step.",
        "model.state_dict() and optimizer.state_dict() go back with load_state_dict; batches.get_state() with "
        "batches.set_state(); torch.get_rng_state() with torch.set_rng_state().",
        "state_dict() holds the live tensors, which training goes on changing: copy.deepcopy the whole dict. And "
        "load_state returns the step.",
    ],
    solution=SOLUTION,
    right="The resumed run has the losses of the uninterrupted one, bit for bit, also by way of a file.",
    wants="value",
)
def check_resume(pair: Any) -> None:
    if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(callable(f) for f in pair)):
        raise Wrong('It wants both functions, in brackets: check("day20b", (save_state, load_state)).')
    save, load = pair
    live = Run(1)
    live.go(6)
    held = live.held()
    state = live.save(save)
    if not isinstance(state, dict):
        raise Wrong(f"save_state should return a dict, and it returned something of type {type(state).__name__}.")
    if not same(live.held(), held):
        raise Wrong("save_state changes the run that it saves: it should only read.")
    through = sent_through_file(state)
    wanted = live.go(6)
    after = live.held()
    resume(load, through, held, wanted, "")
    if not same(live.held(), after):
        raise Wrong("load_state changes the run that was saved: does it write into the old model or generator?")
    resume(load, state, held, wanted, "through a file it comes back right; kept in memory while training goes on, ")
    resume(load, state, held, wanted, "the second time it is loaded, ")


def sent_through_file(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    with blame("torch.save cannot write the dict"):
        torch.save(state, file)
    file.seek(0)
    try:
        return torch.load(file, weights_only=True)
    except Exception as e:
        plain = {"dict", "OrderedDict", "Tensor", "int", "float", "str"}
        kinds = sorted({type(v).__name__ for v in state.values()} - plain)
        raise Wrong(
            "With weights_only=True the file does not load, because the dict holds whole objects"
            + (f" ({', '.join(kinds)})" if kinds else "")
            + ": keep their state only, state_dict() or get_state()."
        ) from e


def resume(load: Callable[..., Any], state: Any, held: dict[str, Any], wanted: list[float], when: str) -> None:
    """Load into a fresh run, compare what it holds, and go on; raises the Wrong that fits."""
    run = Run(99)
    model, optimizer = run.model, run.optimizer
    step = run.load(load, state)
    random = torch.get_rng_state()
    now = run.held()
    for names, sentence in (
        (("model",), "the parameters differ from those that were saved"),
        (("optimizer",), "the optimizer begins with empty averages or other ones"),
        (("batches",), "the generator of the batches does not stand where it stood, so other batches come"),
    ):
        if not all(same(now[n], held[n]) for n in names):
            advice = COPY if when.startswith("through") else TAKEN if when else ADVICE[names[0]]
            raise Wrong(capital(when + sentence) + advice)
    if not torch.equal(random, held["random"]):
        raise Wrong(
            capital(when + "PyTorch's global generator does not stand where it stood, so dropout draws other zeros: "
            "save torch.get_rng_state() and set it again.")
        )  # fmt: skip
    if step is None:
        raise Wrong("load_state returned None: return the step, the schedule needs it.")
    if isinstance(step, Tensor):
        step = step.item()
    if step != held["step"]:
        off = f", {held['step']} steps were done when it was saved and the next one has that number"
        raise Wrong(capital(when + f"load_state returned the step {step!r} and not {held['step']}{off}."))
    run.step = step
    if run.model is not model or run.optimizer is not optimizer or run.go(len(wanted)) != wanted:
        raise Wrong(capital(when + "everything seems to be back in place, but the losses that follow differ."))


ADVICE = {
    "model": ": model.state_dict() and model.load_state_dict(…).",
    "optimizer": ": optimizer.state_dict() and optimizer.load_state_dict(…).",
    "batches": ": batches.get_state() and batches.set_state(…).",
}
COPY = ". The dict holds the live tensors, not a copy: use copy.deepcopy."
TAKEN = (
    ". The first load took over tensors of your dict, and the training after it wrote into them: load a copy, "
    "optimizer.load_state_dict(copy.deepcopy(…))."
)


def capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def same(a: Any, b: Any) -> bool:
    """Equal, bit for bit, however deep."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
