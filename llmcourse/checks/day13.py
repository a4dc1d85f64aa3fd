"""Checker of day 13, tying the head to the token table.

The model goes in untied and with N(0, 1) in both tables; what comes out is looked at from outside: which objects are
shared, which numbers they hold, what else changed, what a checkpoint would contain, and whether an optimizer made
from the returned groups sees every parameter once.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..model import GPT, GPTConfig
from . import Wrong, blame, exercise, load_optimizers

Tie = Callable[[GPT], Any]
Groups = list[dict[str, Any]]
TABLE, HEAD = "transformer.wte.weight", "lm_head.weight"
load_optimizers()  # not within the time limit


def tie(model: GPT) -> Groups:
    """Share head and token table, N(0, 0.02); return AdamW's two groups."""
    model.lm_head.weight = model.transformer.wte.weight  # an object, no copy
    nn.init.normal_(model.lm_head.weight, std=0.02)  # in place: it stays shared
    params = list(model.parameters())  # after tying: each one once
    return [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]


@exercise(
    "day13",
    title="Tying without breaking",
    signature="tie(model)",
    hints=[
        "Tying is one assignment of one object to a second name: model.lm_head.weight = model.transformer.wte.weight. "
        "No .data, no .clone(), no transpose: both are (V, C).",
        "Draw the new numbers in place, after or before tying: nn.init.normal_(model.lm_head.weight, std=0.02). A new "
        "nn.Parameter would untie what was tied.",
        "List the parameters after tying: model.parameters() then names the shared one once. p.ndim >= 2 tells "
        "matrices from vectors.",
    ],
    solution=tie,
    right="One table under two names, drawn from N(0, 0.02), and an optimizer that sees each parameter once.",
)
def check_tie(learner: Tie) -> None:
    for vocab, width, layers in ((257, 48, 2), (101, 32, 1)):
        model = untied(vocab, width, layers)
        before = copy.deepcopy(model)
        groups = learner(model)
        look_at_tie(model, before)
        look_at_numbers(model, before)
        look_at_names(model, before)
        look_at_gradient(model)
        look_at_groups(as_groups(groups), model, before)


def untied(vocab: int, width: int, layers: int) -> GPT:
    """A GPT whose token table and head are N(0, 1), and everything else as it should be."""
    model = GPT(GPTConfig(vocab, 16, layers, 4, width, tie_weights=False))
    for weight in (model.transformer["wte"].weight, model.lm_head.weight):
        nn.init.normal_(weight)
    return model


def part(model: GPT, name: str) -> Tensor:
    """A parameter by its name; Wrong if it is gone."""
    try:
        value = model.get_parameter(name)
    except AttributeError:
        value = None
    if not isinstance(value, Tensor):
        raise Wrong(
            f"The model has no {name} any more, and every checkpoint that names it no longer fits: keep both modules "
            "and share their weight."
        )
    return value


def look_at_tie(model: GPT, before: GPT) -> None:
    """Whether head and table are one parameter; if not, what they are instead."""
    table, head, old = part(model, TABLE), part(model, HEAD), before.transformer["wte"].weight
    if isinstance(model.lm_head, nn.Embedding):
        raise Wrong("lm_head is now the embedding, which looks up and cannot score: share its weight, not the module.")
    if table is head:
        if table.shape != old.shape:
            raise Wrong(
                f"Head and table share a matrix of shape {tuple(table.shape)}, which is transposed: nn.Linear stores "
                "(out, in), so both weights are (V, C) and can be one object as they are."
            )
        return
    if table.shape != head.shape:
        raise Wrong(
            f"The table has shape {tuple(table.shape)} and the head {tuple(head.shape)}: you gave the head the "
            "transposed matrix. Both weights are (V, C); no transpose is needed."
        )
    if table.data_ptr() == head.data_ptr():
        raise Wrong(
            "Head and table share their memory but are two parameters, as after .data or .detach(): each gets its own "
            "gradient and the optimizer moves the same numbers twice. Assign the parameter itself."
        )
    if torch.equal(table, head):
        raise Wrong(
            "Head and table hold equal numbers in two places, a copy: after the first training step they differ. "
            "Assign the parameter itself, without clone() or copy_()."
        )
    if torch.equal(table, old) and torch.equal(head, before.lm_head.weight):
        raise Wrong("Head and table are as they were, two matrices: nothing is shared.")
    if abs(table.std().item() - 1) > 0.2 and abs(head.std().item() - 1) > 0.2:
        raise Wrong(
            "Head and table were both drawn anew and are two matrices: a new nn.Parameter or nn.Linear after tying "
            "unties them. Draw in place, with nn.init.normal_."
        )
    raise Wrong("Head and table are two different matrices: one of them was replaced, but not by the other one itself.")


def look_at_numbers(model: GPT, before: GPT) -> None:
    """The shared table is N(0, 0.02), and nothing else has changed."""
    table = part(model, TABLE).detach()
    if not table.isfinite().all():
        raise Wrong("The shared table holds NaN or infinity.")
    std, mean = table.std().item(), table.mean().item()
    if std > 0.8 and not any(same(table, w.weight) for w in (before.transformer["wte"], before.lm_head)):
        raise Wrong(
            f"The shared table was drawn anew with a standard deviation of {std:.1f}: the second argument of normal_ "
            "is the mean; write std=0.02."
        )
    if std > 0.8:
        raise Wrong(
            "Head and table are one, but still hold their N(0, 1) numbers: this is the model whose first loss is far "
            "above ln V. Draw them from N(0, 0.02)."
        )
    if std < 1e-6:
        raise Wrong("All numbers of the shared table are the same: tokens could not be told apart. Draw them randomly.")
    if abs(std / 0.02**0.5 - 1) < 0.1:
        raise Wrong("The shared table has a variance of 0.02: 0.02 is the standard deviation, std=0.02.")
    if abs(std / 0.02 - 1) > 0.1:
        raise Wrong(f"The shared table has a standard deviation of {std:.3g} instead of 0.02.")
    if abs(mean) > 0.005:
        raise Wrong(f"The shared table has a mean of {mean:.2f} instead of 0.")
    if table.abs().max() < 2.5 * std:
        raise Wrong("The shared table has the right size, but no number far from 0: it is not normal (uniform, say).")
    new = dict(model.named_parameters(remove_duplicate=False))
    for name, old in before.named_parameters():
        if name not in (TABLE, HEAD) and name in new and not same(new[name], old):
            raise Wrong(
                f"{name} has changed too: only the shared table is drawn anew, as init_weights() or apply() on the "
                "whole model would also reset layers that may be trained already."
            )


def same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def look_at_names(model: GPT, before: GPT) -> None:
    """A checkpoint of the tied model has the same names as before and loads again."""
    new, old = set(model.state_dict()), set(before.state_dict())
    if extra := sorted(new - old):
        raise Wrong(
            f"The state_dict has a name that it did not have, {extra[0]}: checkpoints no longer fit. Use the "
            "two modules that are there."
        )
    if missing := sorted(old - new):
        raise Wrong(f"The state_dict has lost {missing[0]}: checkpoints no longer fit.")
    clone = copy.deepcopy(model)
    if clone.lm_head.weight is not clone.transformer["wte"].weight:
        raise Wrong("After copy.deepcopy the two are no longer one: something other than the weight itself is shared.")


def look_at_gradient(model: GPT) -> None:
    """Both uses reach the shared table: the sum is compared with that of an untied model of equal numbers."""
    table = part(model, TABLE)
    if not table.requires_grad:
        raise Wrong("The shared table has requires_grad=False, so it never learns.")
    c = model.config
    apart = GPT(GPTConfig(c.vocab_size, c.block_size, c.n_layer, c.n_head, c.n_embd, tie_weights=False))
    apart.load_state_dict(model.state_dict())
    idx = torch.randint(c.vocab_size // 2, (2, 8))
    targets = torch.randint(c.vocab_size, (2, 8))
    apart.loss(idx, targets).backward()
    model.zero_grad()
    with blame("The tied model cannot compute its loss"):
        logits = model(idx)
        model.loss(idx, targets).backward()
    if not torch.allclose(logits, apart(idx), rtol=1e-4, atol=1e-5):
        raise Wrong("The tied model gives other logits than the same numbers in two tables: is its forward changed?")
    as_input, as_head = apart.transformer["wte"].weight.grad, apart.lm_head.weight.grad
    grad = table.grad
    model.zero_grad()
    if grad is not None and torch.allclose(grad, as_input + as_head, atol=1e-6):
        return
    if grad is not None and torch.allclose(grad, as_input, atol=1e-6):
        raise Wrong(
            "The gradient of the shared table comes from its use as input only: the head's part is cut off, as a "
            "detach() in the head does."
        )
    raise Wrong("The gradient of the shared table is not the sum of its two uses.")


def as_groups(value: Any) -> Groups:
    """What the learner returned, as a list of dicts with lists of parameters."""
    if value is None:
        raise Wrong("tie returned None: it should return the two groups for AdamW; is there a return line at its end?")
    if isinstance(value, torch.optim.Optimizer):
        return value.param_groups
    if isinstance(value, nn.Module):
        raise Wrong("tie returned the model: the model is changed in place, and the groups for AdamW are returned.")
    groups = list(value) if isinstance(value, Iterable) and not isinstance(value, dict | str) else []
    if not groups or not all(isinstance(g, dict) and "params" in g for g in groups):
        raise Wrong(
            'tie should return a list of two dicts such as {"params": [...], "weight_decay": 0.1}, not '
            f"{type(value).__name__}{' of ' + type(groups[0]).__name__ if groups else ''}."
        )
    out = []
    for g in groups:
        params = [g["params"]] if isinstance(g["params"], Tensor) else list(g["params"])
        if params and not all(isinstance(p, Tensor) for p in params):
            raise Wrong(
                "A group lists names or pairs instead of parameters: use model.parameters(), or the p of (name, p)."
            )
        out.append({**g, "params": params})
    return out


def look_at_groups(groups: Groups, model: GPT, before: GPT) -> None:
    """Each parameter exactly once, nothing that is not in the model, and the right decay for each."""
    names = {id(p): name for name, p in model.named_parameters()}
    names[id(part(model, TABLE))] = "the shared table"
    listed = [id(p) for g in groups for p in g["params"]]
    twice = {i for i in listed if listed.count(i) > 1 and i in names}
    if twice:
        what = names[sorted(twice, key=lambda i: names[i] != "the shared table")[0]]
        raise Wrong(
            f"The groups list {what} twice: the optimizer would refuse it, or move it twice a step. model.parameters() "
            "lists a shared one once; state_dict() and a walk over the modules do not."
        )
    strangers = [p for g in groups for p in g["params"] if id(p) not in names]
    if any(isinstance(p, nn.Parameter) and p.shape == before.lm_head.weight.shape for p in strangers):
        raise Wrong(
            "The groups hold a matrix that the model no longer has: they were made before tying, so the optimizer "
            "carries the old table along. Tie first, then list the parameters."
        )
    if strangers:
        raise Wrong(
            "The groups hold tensors that are not the model's parameters (state_dict() gives detached ones): an "
            "optimizer made of them trains nothing."
        )
    missing = [name for i, name in names.items() if i not in set(listed)]
    if missing:
        first = "the shared table" if "the shared table" in missing else missing[0]
        raise Wrong(f"No group holds {first}: the optimizer would never move it.")
    look_at_decay(groups, names)


def look_at_decay(groups: Groups, names: dict[int, str]) -> None:
    decay: dict[bool, set[float]] = {True: set(), False: set()}  # of matrices, of vectors
    table_left_out = False
    for g in groups:
        for p in g["params"]:
            if "weight_decay" not in g:
                raise Wrong('A group has no "weight_decay": AdamW would take its own default for it.')
            decay[p.ndim >= 2].add(float(g["weight_decay"]))
            table_left_out |= names[id(p)] == "the shared table" and float(g["weight_decay"]) == 0
    if decay == {True: {0.0}, False: {0.1}}:
        raise Wrong("The two decays have changed places: matrices get 0.1 and vectors 0.0.")
    if table_left_out and len(decay[True]) > 1:
        raise Wrong("The shared table gets no weight decay: it is a matrix like the others, 0.1.")
    if decay[False] != {0.0}:
        raise Wrong("Biases or LayerNorm gains get weight decay: vectors (p.ndim < 2) belong in the group with 0.0.")
    if decay[True] != {0.1}:
        raise Wrong("Not all matrices and tables get a weight decay of 0.1: p.ndim >= 2 finds them all.")
