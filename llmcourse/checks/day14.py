"""Checker of day 14, loading GPT-2's weights by name.

The learner's function gets a small GPT and a dict of random tensors, laid out as published files are. Afterwards every
parameter is compared with what it should hold, and with what the typical mistakes would have put there.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..model import GPT, GPTConfig
from . import Wrong, exercise, first_line, place

Loader = Callable[[nn.Module, dict[str, Tensor]], Any]
CONV1D = ("c_attn.weight", "c_fc.weight", "c_proj.weight")
MASKS = (".attn.bias", ".attn.masked_bias")
PREFIX, TABLE, HEAD = "transformer.", "transformer.wte.weight", "lm_head.weight"


def load_gpt2(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Fill `model`, a GPT of linear layers with a tied head, with GPT-2 weights as files store them."""
    found: dict[str, Tensor] = {}  # a new dict: the caller keeps the old one
    for name, w in weights.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue  # a stored mask, not a parameter
        if not name.startswith(("transformer.", "lm_head.")):
            name = f"transformer.{name}"
        found[name] = w.t() if name.endswith(("c_attn.weight", "c_fc.weight", "c_proj.weight")) else w
    if "transformer.wte.weight" in found:
        table = found["transformer.wte.weight"]
        if not torch.equal(found.setdefault("lm_head.weight", table), table):
            raise ValueError("lm_head.weight is not the table wte.weight: these are not the weights of a tied model.")
    wanted = set(model.state_dict())
    if missing := sorted(wanted - set(found)):
        raise ValueError(f"The file lacks {', '.join(missing)}.")
    if unknown := sorted(set(found) - wanted):
        raise ValueError(f"The model has no place for {', '.join(unknown)}.")
    model.load_state_dict(found)  # copies the numbers, so nothing is shared


@exercise(
    "day14",
    title="Loading GPT-2's weights",
    signature="load_gpt2(model, weights)",
    hints=[
        "Build a new dict first: go through weights.items(), skip what is a mask, mend the name, transpose where "
        "needed. In the end one call of model.load_state_dict(new) copies everything, and refuses wrong names.",
        "Transpose exactly the names that end with c_attn.weight, c_fc.weight or c_proj.weight, whatever the shape: "
        "attention's c_proj is square. Masks end with '.attn.bias' or '.attn.masked_bias', with the dot.",
        "Add 'transformer.' to names that begin with neither 'transformer.' nor 'lm_head.'. If 'lm_head.weight' is "
        "missing, put the table in, new['lm_head.weight'] = new['transformer.wte.weight']; if it is there, compare the "
        "two with torch.equal and raise ValueError if they differ.",
    ],
    solution=load_gpt2,
    right="Every number is in its place, the head is tied, and files that do not fit are refused.",
)
def check_load(learner: Loader) -> None:
    model, weights = case()
    expected = truth(weights)
    load(learner, model, weights, "with 'transformer.' before the names and nothing special")
    compare(model, weights, expected)
    if shared(model, weights):
        raise Wrong(
            "The model uses the very tensors of the dict, so training it would change the caller's: copy the numbers, "
            "as load_state_dict and copy_ do."
        )
    check_square_tables(learner)
    check_masks(learner)
    check_names(learner)
    check_head(learner)
    check_refusals(learner)


# Cases -----------------------------------------------------------------------------------------------------------


def case(block_size: int = 6) -> tuple[GPT, dict[str, Tensor]]:
    """A small GPT, and weights for it in the layout of files, with all names and the prefix."""
    model = GPT(GPTConfig(vocab_size=11, block_size=block_size, n_layer=2, n_head=2, n_embd=8))
    weights = {}
    for name, p in model.state_dict().items():
        stored = p.t() if name.endswith(CONV1D) else p
        weights[name] = torch.randn(stored.shape)
    weights[HEAD] = weights[TABLE].clone()
    return model, weights


def truth(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: (w.t() if name.endswith(CONV1D) else w).clone() for name, w in weights.items()}


def bare(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, as OpenAI's file on the hub has it: no prefix, no head."""
    return {name.removeprefix(PREFIX): w for name, w in weights.items() if name != HEAD}


def with_masks(weights: Mapping[str, Tensor], prefix: str = PREFIX) -> dict[str, Tensor]:
    masks = {f"{prefix}h.{i}.attn.bias": torch.ones(1, 1, 6, 6).tril() for i in range(2)}
    return {**weights, **masks, f"{prefix}h.0.attn.masked_bias": torch.tensor(-1e4)}


# Calling ---------------------------------------------------------------------------------------------------------


def load(learner: Loader, model: nn.Module, weights: dict[str, Tensor], which: str) -> None:
    """Call the learner's function; Wrong if it fails, or changes the dict or its tensors."""
    names, before = list(weights), {name: w.clone() for name, w in weights.items()}
    tensors = dict(weights)
    try:
        learner(model, weights)
    except (NotImplementedError, Wrong):
        raise
    except Exception as e:
        text = str(e)
        if "size" in text or "shape" in text:
            only_tables = "wte" in text or "wpe" in text
            if only_tables and not any(name in text for name in CONV1D):
                raise Wrong(
                    "The tables wte and wpe are turned on their side: only the four linear layers of a block are "
                    "stored the other way round."
                ) from e
            raise Wrong(
                "The shapes do not fit: files store the four linear layers of a block with the input dimension first, "
                "so c_attn, c_fc and both c_proj must be transposed, and nothing else."
            ) from e
        if "transformer.lm_head" in text:
            raise Wrong("lm_head.weight got the prefix 'transformer.' too: the head stands beside it.") from e
        error = ValueError(" ".join(text.split()).replace("Error(s) in loading state_dict for GPT: ", ""))
        raise Wrong(f"It fails for a file {which} ({first_line(error)}{place(e)}).") from e
    if list(weights) != names:
        raise Wrong(
            "Your function adds to the dict it was given, or takes names out of it (pop, del), and the caller still "
            "needs it: build a new one."
        )
    for name, w in before.items():
        if tensors[name].shape != w.shape or not torch.equal(tensors[name], w):
            raise Wrong(f"The tensor {name} was turned or changed in place (t_, copy_, …): use .t(), a view.")
        if weights[name] is not tensors[name]:
            raise Wrong(f"The entry {name} of the given dict was replaced: put what you change into a new dict.")


def compare(model: Any, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Whether every parameter holds its tensor, and the head is still the table."""
    now = model.state_dict()
    for name, right in expected.items():
        got = now[name].detach()
        if got.shape == right.shape and torch.equal(got, right):
            continue
        stored = weights[name]
        if got.shape != right.shape:
            if name.endswith(CONV1D):
                raise Wrong(
                    f"{name} has shape {tuple(got.shape)} now, as in the file; nn.Linear multiplies with the output "
                    "dimension first. (Assigning to .data checks no shape.)"
                )
            raise Wrong(f"{name} has shape {tuple(got.shape)} now, and had {tuple(right.shape)}: keep it.")
        if name.endswith("attn.c_proj.weight") and torch.equal(got, stored):
            raise Wrong(
                "attn.c_proj is not transposed: its matrix is square and fits either way, so its shape cannot tell; "
                "go by the name."
            )
        if name.endswith(CONV1D) and torch.equal(got.flatten(), stored.flatten()):
            raise Wrong(
                f"{name} has the right shape, but its numbers were poured into it row by row (view or reshape): "
                "transposing is .t()."
            )
        if name.endswith("c_attn.bias"):
            raise Wrong(
                "c_attn.bias was not loaded: it ends with 'attn.bias' too, but is no mask; look for '.attn.bias', "
                "with the dot."
            )
        if got.ndim == 2 and got.shape[0] == got.shape[1] and torch.equal(got, right.t()):
            raise Wrong(f"{name} is transposed, and it is a table: positions and tokens are stored as they are used.")
        raise Wrong(f"{name} does not hold the tensor of that name afterwards.")
    if model.lm_head.weight is not model.transformer["wte"].weight:
        raise Wrong(
            "The head holds the right numbers, but it is a matrix of its own now: the next training step would tear "
            "the two apart. Copy into the parameters, or tie them again."
        )


def shared(model: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    given = {w.untyped_storage().data_ptr() for w in weights.values()}
    return any(p.untyped_storage().data_ptr() in given for p in model.parameters())


# What files may look like ----------------------------------------------------------------------------------------


def check_square_tables(learner: Loader) -> None:
    model, weights = case(block_size=8)  # wpe is square
    load(learner, model, weights, "whose position table is square")
    compare(model, weights, truth(weights))


def check_masks(learner: Loader) -> None:
    model, weights = case()
    expected, stored = truth(weights), with_masks(weights)
    try:
        load(learner, model, stored, "with masks")
    except Wrong as e:
        text = str(e.__cause__ or e)
        if ".attn.bias" in text or "masked_bias" in text:
            which = "attn.bias" if ".attn.bias" in text else "attn.masked_bias"
            raise Wrong(
                f"A file with the entry {which} is not loaded: that is a stored mask, not a parameter; skip it."
            ) from e
        raise
    compare(model, weights, expected)


def check_names(learner: Loader) -> None:
    model, weights = case()
    expected = truth(weights)
    for with_head in (True, False):
        stored = bare(weights) | ({HEAD: weights[HEAD]} if with_head else {})
        before = {name: p.clone() for name, p in model.state_dict().items()}
        try:
            load(learner, model, stored, "without the prefix")
        except Wrong as e:
            if "It fails for a file" not in str(e):
                raise
            if not with_head and "lm_head" in str(e.__cause__):
                raise Wrong(
                    "A file without lm_head.weight is refused: OpenAI's has none, because the head is the table."
                ) from e
            raise Wrong(
                "Names without 'transformer.' before them, such as h.0.ln_1.weight, are not understood: OpenAI's file "
                "has them."
            ) from e
        if all(torch.equal(p, before[name]) for name, p in model.state_dict().items() if ".h." in name):
            raise Wrong(
                "A file whose names lack the prefix 'transformer.' loads nothing at all, and nobody is told: that is "
                "what strict=False or a silent `if name in …` does."
            )
        compare(model, weights, expected)
        model, _ = case()
    load(learner, model, with_masks(bare(weights), ""), "without the prefix and with masks")
    compare(model, weights, expected)


def check_head(learner: Loader) -> None:
    model, weights = case()
    weights[HEAD] = torch.randn_like(weights[HEAD])
    if refusal(learner, model, weights) is None:
        raise Wrong(
            "A file whose lm_head.weight differs from wte.weight is accepted. Its head belongs to an untied model: one "
            "of the two matrices is silently lost here."
        )


def check_refusals(learner: Loader) -> None:
    for lost in ("h.1.mlp.c_fc.bias", "wpe.weight", "ln_f.weight", "wte.weight"):
        model, weights = case()
        del weights[PREFIX + lost]
        if lost == "wte.weight":
            del weights[HEAD]
        named(
            refusal(learner, model, weights),
            lost,
            f"A file without {lost} is accepted, and that part of the model keeps its random numbers: refuse what is "
            "missing (strict=False hides it).",
        )
    for extra in (f"{PREFIX}h.2.ln_1.weight", "h.0.attn.rotary.weight"):
        model, weights = case()
        weights[extra] = torch.randn(8)
        named(
            refusal(learner, model, weights),
            extra.removeprefix(PREFIX),
            f"A file with a name that the model does not have, {extra}, is accepted: left-over weights mean that the "
            "file is for another model.",
        )


def refusal(learner: Loader, model: nn.Module, weights: dict[str, Tensor]) -> Exception | None:
    try:
        learner(model, weights)
    except NotImplementedError:
        raise
    except Exception as e:
        return e
    return None


def named(error: Exception | None, name: str, accepted: str) -> None:
    """The refusal must be there, and must contain the name."""
    if error is None:
        raise Wrong(accepted)
    if name not in str(error):
        raise Wrong(
            f"A file that is wrong at {name} is refused, but the message does not contain that name: whoever reads it "
            "should know what to look for."
        )
