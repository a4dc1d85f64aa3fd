"""Checker of day 24, temperature with the right limits.

Probabilities tell what was done to the logits: their logarithms are a straight line over the logits, and its slope
is 1 over the temperature that was really used. The limits (0, infinity, 16 bits) are judged one by one afterwards.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import Wrong, blame, call, exercise, tensor

Temperature = Callable[[Tensor, float], Any]
V = 7


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities of logits `(…, V)` at a temperature from 0 to infinity."""
    if not temperature >= 0:  # also refuses nan
        raise ValueError(f"The temperature must be 0 or more, not {temperature}.")
    z = logits - logits.amax(dim=-1, keepdim=True)  # at most 0, so that nothing can overflow upwards
    if temperature == 0:
        best = (z == 0).to(z.dtype)  # equally high ones share
        return best / best.sum(dim=-1, keepdim=True)
    return (z / temperature).softmax(dim=-1)


@exercise(
    "day24",
    title="Temperature",
    signature="apply_temperature(logits, temperature)",
    hints=[
        "Start with the ordinary case: divide the logits by the temperature, then softmax along the last dimension, "
        "dim=-1.",
        "Subtract each row's highest logit first, logits - logits.amax(-1, keepdim=True): no probability changes, and "
        "the division can no longer overflow.",
        "Temperature 0 is a case of its own: after the subtraction the highest are exactly 0, so z == 0 marks them; "
        "divide the marks by their number. A negative temperature: raise ValueError(...).",
    ],
    solution=apply_temperature,
    right="Sharp below 1, flat above, right at 0 and at infinity, and the caller's logits are untouched.",
)
def check_apply_temperature(learner: Temperature) -> None:
    logits = 2 * torch.randn(5, V) + torch.arange(5.0)[:, None]  # rows at different heights
    for temperature in (0.5, 2.0, 1.0):
        judge(logits, temperature, probabilities(learner, logits, temperature))
    check_shapes(learner)
    check_cold(learner)
    check_zero(learner)
    check_infinity(learner)
    check_negative(learner)


def probabilities(learner: Temperature, logits: Tensor, temperature: float) -> Tensor:
    out = call(learner, logits=logits, temperature=temperature)
    if isinstance(out, Tensor) and not out.is_floating_point() and out.shape == logits.shape[:-1]:
        raise Wrong(
            f"At temperature {temperature:g} the result holds the numbers of the highest logits: return a distribution "
            "over all V tokens, with a 1 for the highest."
        )
    return tensor(out, logits.shape, logits.dtype, "(…, V)")


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def judge(logits: Tensor, temperature: float, out: Tensor) -> None:
    """The ordinary case; anything wrong gets the sentence that fits."""
    if same(out, apply_temperature(logits, temperature)):
        return
    scaled, p = logits / temperature, logits.softmax(-1)
    if same(out, scaled):
        raise Wrong("The result is still logits: after the division comes the softmax.")
    if same(out, scaled.log_softmax(-1)):
        raise Wrong("The result holds logarithms (log_softmax): return the probabilities themselves.")
    if same(out, p / temperature):
        raise Wrong(
            f"The probabilities are divided by T and sum to {1 / temperature:g}: divide the logits, before the softmax."
        )
    if not out.isfinite().all():
        raise Wrong(f"At temperature {temperature:g} the result is NaN or infinite for ordinary logits.")
    sums = out.sum(-1)
    if not same(sums, torch.ones_like(sums)):
        if same(out.sum(0), torch.ones(V)):
            raise Wrong("Each column sums to 1 instead of each row: the softmax belongs on the last dimension, dim=-1.")
        if math.isclose(float(out.sum()), 1, rel_tol=1e-3):
            raise Wrong("All numbers of the batch together sum to 1: each row is a bet of its own, use dim=-1.")
        raise Wrong(f"Row 0 sums to {float(sums[0]):.2f} instead of 1: is the softmax the last thing you do?")
    centered = logits - logits.mean(-1, keepdim=True)
    logs = out.clamp_min(1e-30).log()
    logs = logs - logs.mean(-1, keepdim=True)
    slope = float((centered * logs).sum() / (centered * centered).sum())
    if not torch.allclose(slope * centered, logs, rtol=1e-2, atol=1e-2):
        raise Wrong(f"At temperature {temperature:g} the result is no softmax of the logits divided by one number.")
    if math.isclose(slope, temperature, rel_tol=1e-2):
        raise Wrong("The logits are multiplied by the temperature: divide, so that a low one makes the bet sharper.")
    if math.isclose(slope, 1, rel_tol=1e-2):
        raise Wrong(
            f"Temperature {temperature:g} changes nothing: a factor on probabilities cancels when they are divided by "
            "their sum. Divide the logits."
        )
    if math.isclose(slope, 1 / temperature, rel_tol=2e-2):
        raise Wrong(
            "Something small is added to the temperature, against a division by zero: use it as it is, and treat 0 as "
            "a case of its own."
        )
    raise Wrong(f"The logits are multiplied by {slope:.3g}; for T = {temperature:g} it should be {1 / temperature:g}.")


def check_shapes(learner: Temperature) -> None:
    for shape in ((V,), (2, 3, V)):
        logits = torch.randn(shape)
        with blame(f"It works for logits of shape (B, V), but fails for {shape}"):
            if not same(probabilities(learner, logits, 0.5), apply_temperature(logits, 0.5)):
                raise Wrong(f"It is right for logits of shape (B, V), but not for {shape}: work along dim=-1.")
    removed = torch.tensor([[1.0, 2.0, -math.inf]])  # as a filter leaves them
    if not same(probabilities(learner, removed, 0.5), apply_temperature(removed, 0.5)):
        raise Wrong("A logit of -inf, as a filter leaves it, must keep probability 0 and do no harm to the others.")


def check_cold(learner: Temperature) -> None:
    """Low temperatures: nothing may overflow, and none may be raised to a higher one."""
    for logits, temperature in ((torch.tensor([[200.0, 199.0, 0.0]]), 1.0), (torch.tensor([[60.0, 59.0, 0.0]]), 0.2)):
        out = probabilities(learner, logits, temperature)
        if not out.isfinite().all():
            raise Wrong(
                f"A logit of {logits.max():g} at temperature {temperature:g} gives NaN: exp overflows above 88. "
                "Subtract the row's highest logit first."
            )
    logits = torch.tensor([[0.0, -1e-4, -30.0], [-40.0, 0.0, -2e-4]])
    with blame("It fails at temperature 0.0001"):
        out = probabilities(learner, logits, 1e-4)
    if not out.isfinite().all():
        raise Wrong(
            "At temperature 0.0001 the result is NaN: powers such as p ** 10000 all become 0. Work on the logits, and "
            "subtract the highest first."
        )
    if not torch.allclose(out, apply_temperature(logits, 1e-4), atol=1e-2):
        if same(out, apply_temperature(logits, 0)):
            raise Wrong(
                "At temperature 0.0001 the highest takes all, though the second is only 0.0001 below it and should "
                "keep a quarter: only 0 itself is the special case."
            )
        raise Wrong("Temperature 0.0001 is not used as it is: do you raise small temperatures to a minimum?")
    half = torch.tensor([[20.0, 19.0, 1.0]], dtype=torch.float16)
    with blame("It fails for fp16 logits at temperature 0.0001"):
        out = call(learner, logits=half, temperature=1e-4)
    if not (isinstance(out, Tensor) and out.shape == half.shape and out[0, 0] > 0.99):
        raise Wrong(
            "In fp16 a logit of 20 divided by 0.0001 overflows (65504 is the end): subtract the row's highest logit "
            "before you divide."
        )


def check_zero(learner: Temperature) -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0], [5.0, -1.0, 4.0, 0.5]])
    try:
        out = probabilities(learner, logits, 0.0)
    except ValueError as e:
        raise Wrong("Temperature 0 is refused: return its limit, in which the highest logit takes all.") from e
    except ZeroDivisionError as e:
        raise Wrong("Temperature 0 divides by zero: treat it before the division, as a case of its own.") from e
    if not out.isfinite().all():
        raise Wrong("At temperature 0 the result is NaN: dividing by 0 leaves inf or 0/0; make it a case of its own.")
    if same(out, logits.softmax(-1)):
        raise Wrong("At temperature 0 you return the bet of temperature 1: the limit is that the highest takes all.")
    if not same(out, apply_temperature(logits, 0)):
        raise Wrong("At temperature 0 the highest logit of each row should have probability 1, the others 0.")
    ties = torch.tensor([[2.0, 5.0, 5.0, 1.0], [3.0, 3.0, 3.0, 3.0]])
    out = probabilities(learner, ties, 0)
    if same(out, apply_temperature(ties, 0)):
        return
    if same(out.sum(-1), torch.ones(2)):
        raise Wrong(
            "At temperature 0 one of two equally high logits takes all: at every T above 0 their shares are equal, so "
            "in the limit they share. argmax names only one of them."
        )
    raise Wrong("At temperature 0 two equally high logits get 1 each: divide by their number, so that a row sums to 1.")


def check_infinity(learner: Temperature) -> None:
    logits = torch.randn(2, V)
    with blame("It fails at temperature infinity, math.inf"):
        out = probabilities(learner, logits, math.inf)
    if not same(out, torch.full((2, V), 1 / V)):
        raise Wrong("At temperature infinity (math.inf) all V tokens should have the probability 1/V.")


def check_negative(learner: Temperature) -> None:
    try:
        learner(torch.randn(2, V), -1.0)
    except ValueError:
        return
    except NotImplementedError:
        raise
    except Exception as e:
        raise Wrong(f"A negative temperature ends in {type(e).__name__}: it should be a ValueError.") from e
    raise Wrong("A temperature of -1 is accepted without a word: raise a ValueError.")
