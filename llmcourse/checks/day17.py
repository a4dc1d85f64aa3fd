"""Checkers of day 17: the number format by compute capability, and the order of devices.

Neither needs a GPU. The policy is a function of what it is told; for the order of devices, PyTorch is made to
believe in one machine after the other.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from . import Wrong, blame, exercise

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
SHORT = {FP32: "fp32", FP16: "fp16", BF16: "bf16"}
MODERN = {"an A100": (8, 0), "an RTX 3090": (8, 6), "an L4": (8, 9), "an H100": (9, 0), "a B200": (10, 0)}
MODERN |= {"an RTX 5090": (12, 0)}
OLDER = {"a T4": (7, 5), "a V100": (7, 0)}


def policy(device_type: str, capability: tuple[int, int] | None) -> tuple[torch.dtype, bool]:
    """The dtype of the matrix products, and whether gradients need a scaler, for "cuda", "mps" or "cpu"."""
    if device_type != "cuda":
        return torch.float32, False
    if capability is not None and capability >= (8, 0):  # bf16 in hardware, with the range of fp32
        return torch.bfloat16, False
    return torch.float16, True  # its small gradients would become 0: scale the loss


@exercise(
    "day17",
    title="A precision policy",
    signature="policy(device_type, capability)",
    hints=[
        "Three cases: no CUDA at all; CUDA with bf16 in hardware; CUDA without. Look at the device type first, since "
        "the capability is None elsewhere.",
        "bf16 in hardware begins with compute capability 8.0. Tuples compare from left to right, so "
        "capability >= (8, 0) is right for (8, 9), (9, 0) and (12, 0) too.",
        "Return two things: torch.float32, False outside CUDA; torch.bfloat16, False from (8, 0) on; and "
        "torch.float16, True below. fp16 alone has the short range that makes a scaler necessary.",
    ],
    solution=policy,
    right="bf16 only where the chip has it, and a scaler exactly where fp16 is used.",
)
def check_policy(learner: Callable[[Any, Any], Any]) -> None:
    with mock.patch("torch.cuda.is_bf16_supported", asked), mock.patch("torch.cuda.get_device_capability", asked):
        check_cases(learner)


def asked(*_: Any, **__: Any) -> Any:
    """Stands in for what PyTorch would say about the GPU of this machine."""
    raise Wrong("You ask PyTorch about the GPU of this machine: decide by the capability that the function is given.")


def check_cases(learner: Callable[[Any, Any], Any]) -> None:
    """What a policy that looks at nothing but its arguments answers."""
    for kind in ("cpu", "mps"):
        with blame(f'policy("{kind}", None) fails: there is no capability to look at without CUDA'):
            answer = learner(kind, None)
        dtype, scaler = pair(answer)
        if dtype != FP32:
            raise Wrong(f"On {kind} you compute in {SHORT[dtype]}: outside CUDA the policy asks for fp32.")
        if scaler:
            raise Wrong(f"On {kind} you ask for a scaler: fp32 holds the smallest gradients without help.")
    old = {name: pair(learner("cuda", capability)) for name, capability in OLDER.items()}
    new = {name: pair(learner("cuda", capability)) for name, capability in MODERN.items()}
    dtypes = {dtype for dtype, _ in (*old.values(), *new.values())}
    if dtypes == {FP32}:
        raise Wrong("On every CUDA chip you stay in fp32: the matrix units of a GPU would stand idle.")
    if dtypes == {BF16}:
        raise Wrong("You choose bf16 on every CUDA chip: a T4 (7, 5) and a V100 (7, 0) only imitate it, slowly.")
    if dtypes == {FP16}:
        raise Wrong("You choose fp16 on every CUDA chip: from (8, 0) on there is bf16, which needs no scaler.")
    check_older(old)
    check_modern(new)
    for name, (dtype, scaler) in (old | new).items():
        if dtype == FP16 and not scaler:
            raise Wrong(f"On {name} you use fp16 without a scaler: gradients below 6e-8 would become 0.")
        if dtype == BF16 and scaler:
            raise Wrong("You ask for a scaler with bf16: its range is that of fp32, and there is nothing to rescue.")


def check_older(found: dict[str, tuple[torch.dtype, bool]]) -> None:
    """Below 8.0: fp16."""
    t4, v100 = found["a T4"][0], found["a V100"][0]
    if t4 == BF16 and v100 != BF16:
        raise Wrong("A T4 with (7, 5) gets bf16: the limit is 8.0, and 7.5 is not rounded up.")
    if BF16 in (t4, v100) and t4 != v100:
        raise Wrong("A V100 gets bf16 and a T4 does not: the comparison looks at the second number alone.")
    if BF16 in (t4, v100):
        raise Wrong("The older chips get bf16 and the newer ones do not: the comparison is the wrong way round.")
    if FP32 in (t4, v100):
        raise Wrong("Chips below 8.0 get fp32: they have fast circuits for fp16, which works with a scaler.")


def check_modern(found: dict[str, tuple[torch.dtype, bool]]) -> None:
    """From 8.0 on: bf16."""
    missed = {name for name, (dtype, _) in found.items() if dtype != BF16}
    if not missed:
        return
    if missed == set(MODERN) - {"an A100"}:
        raise Wrong("Only (8, 0) itself gets bf16: later chips have it too, so compare with >= instead of ==.")
    if missed == {"an A100"}:
        raise Wrong("An A100 with (8, 0) gets no bf16: it is the first chip that has it, so compare with >= and not >.")
    if missed == {"an A100", "an RTX 3090", "an L4"}:
        raise Wrong("Chips with an 8 in front get no bf16: the limit is (8, 0), and yours begins at 9.")
    if missed == {"a B200", "an RTX 5090"}:
        raise Wrong('Chips with (10, 0) and (12, 0) get no bf16: as text "12.0" is below "8.0"; compare numbers.')
    if missed == {"an H100", "a B200", "an RTX 5090"}:
        raise Wrong("Chips from (9, 0) on get no bf16: what an 8 in front can do, they can do as well.")
    name = sorted(missed)[0]
    raise Wrong(f"{name[0].upper() + name[1:]} with {MODERN[name]} gets no bf16, but its capability is 8.0 or more.")


def pair(answer: Any) -> tuple[torch.dtype, bool]:
    """What the learner returned, if it is a dtype and a truth value."""
    if answer is None:
        raise Wrong("Your function returned None: does every case end in a return line?")
    if isinstance(answer, torch.dtype):
        raise Wrong("You return the dtype alone: return two things, torch.float16, True for instance.")
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"Return a pair, the dtype and whether a scaler is needed, not a {type(answer).__name__}.")
    dtype, scaler = answer
    if isinstance(scaler, torch.dtype):
        raise Wrong("The two results have changed places: first the dtype, then whether a scaler is needed.")
    if isinstance(dtype, str):
        raise Wrong(f'The dtype is a text, "{dtype[:20]}": return the dtype itself, such as torch.bfloat16.')
    if dtype not in SHORT:
        raise Wrong("The first of your results should be torch.float32, torch.float16 or torch.bfloat16.")
    if not isinstance(scaler, bool):
        raise Wrong(f"Whether a scaler is needed should be True or False, not a {type(scaler).__name__}.")
    return dtype, scaler


# ---- the order of devices ------------------------------------------------------------------------------------


def best_device() -> torch.device:
    """CUDA if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@contextmanager
def machine(cuda: bool, mps: bool, built: bool = True) -> Iterator[None]:
    """PyTorch believes that it runs on a machine with these; its code for both is compiled in if `built`."""
    with ExitStack() as stack:
        for name, answer in {
            "torch.cuda.is_available": cuda,
            "torch.backends.mps.is_available": mps,
            "torch.backends.mps.is_built": built,
            "torch.backends.cuda.is_built": built,
        }.items():
            stack.enter_context(mock.patch(name, return_value=answer))
        stack.enter_context(mock.patch("torch.cuda.device_count", return_value=int(cuda)))
        yield


@exercise(
    "day17b",
    title="The order of devices",
    signature="best_device()",
    hints=[
        "Two questions, in the order of preference: torch.cuda.is_available() and torch.backends.mps.is_available().",
        'Return torch.device("cuda") if the first says True; if not, torch.device("mps") if the second does; and '
        'torch.device("cpu") otherwise.',
    ],
    solution=best_device,
    right="CUDA before MPS, MPS before the CPU, and only what is there.",
)
def check_best_device(learner: Callable[[], Any]) -> None:
    found = {}
    for cuda, mps in ((False, False), (False, True), (True, False), (True, True)):
        with machine(cuda, mps), blame("It fails on some machines: ask is_available() before you use a device"):
            found[cuda, mps] = kind(learner())
    neither, apple, nvidia, both = found.values()
    if set(found.values()) == {"cuda"}:
        raise Wrong("You return cuda everywhere: is_built() tells what was compiled in; ask is_available().")
    if len(set(found.values())) == 1:
        raise Wrong(f"You return {neither} on every machine: ask PyTorch what is there each time it is called.")
    if neither == "mps":
        raise Wrong("Without any GPU you return mps: its code being built in is no Mac; ask is_available().")
    if neither == "cuda":
        raise Wrong("Without any GPU you return cuda: is something the wrong way round?")
    if apple != "mps":
        raise Wrong(f"On a Mac with its own GPU you return {apple}: mps comes before the CPU.")
    if nvidia != "cuda":
        raise Wrong(f"With an NVIDIA GPU you return {nvidia}: cuda is the first choice.")
    if both != "cuda":
        raise Wrong(f"Where both are there you return {both}: cuda comes before mps.")
    with machine(False, False, built=False):
        if kind(learner()) != "cpu":
            raise Wrong("Where nothing is compiled in, it does not return the CPU.")


def kind(answer: Any) -> str:
    """The type of the device that the learner returned."""
    if answer is None:
        raise Wrong("Your function returned None for one of the machines: does every branch return?")
    if isinstance(answer, str):
        raise Wrong(f'You return the text "{answer[:20]}": make it a device, torch.device("{answer[:20]}").')
    if not isinstance(answer, torch.device):
        raise Wrong(f"Return a torch.device, not a {type(answer).__name__}.")
    if answer.index:
        raise Wrong(f"You return {answer}, and a machine with one GPU has no such number: leave the number out.")
    return answer.type
