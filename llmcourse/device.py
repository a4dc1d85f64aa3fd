"""Which machine is this, which numbers should it compute with, and how long will it take?

A course runs on laptops, on a free Colab T4 and on whatever a reader has. Three questions come back in every
lesson: which device (`pick_device`), which precision (`precision_policy`), and how much work fits into the
time (`budget`, and `recipes.estimate_seconds`). The last part of the file joins several processes into one run.
"""

import contextlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import CourseError

T = TypeVar("T")


def pick_device(wanted: str | torch.device = "auto") -> torch.device:
    """The best device there is: CUDA, else Apple's MPS, else the CPU; or the one named, if it exists.

    Raises CourseError if the named device is not on this machine.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except (RuntimeError, TypeError, ValueError) as e:
        raise CourseError(f"Device must be auto, cpu, cuda, cuda:N or mps, not {str(wanted)!r}.") from e
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing or device.type not in ("cpu", "cuda", "mps"):
        raise CourseError(f"This machine has no device {str(wanted)!r}; use auto, or cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CourseError(f"This machine has {torch.cuda.device_count()} CUDA device(s), so no {str(wanted)!r}.")
    return device


@dataclass(frozen=True)
class Precision:
    """How forward and backward compute: the type of the matrix products, and whether gradients need scaling."""

    name: str  # "fp32", "fp16" or "bf16"
    dtype: torch.dtype
    scale: bool  # fp16 gradients underflow below 6e-8: multiply the loss before backward, divide before the step

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """Context in which matrix products run in this precision; fp32 needs none."""
        return torch.autocast(device.type, self.dtype) if self.name != "fp32" else contextlib.nullcontext()

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """The gradient scaler that goes with it (does nothing unless `scale`)."""
        return torch.amp.GradScaler(device.type, enabled=self.scale)


PRECISIONS = {
    "fp32": Precision("fp32", torch.float32, scale=False),
    "bf16": Precision("bf16", torch.bfloat16, scale=False),
    "fp16": Precision("fp16", torch.float16, scale=True),
}


def precision_policy(
    device: torch.device, wanted: str = "auto", capability: tuple[int, int] | None = None
) -> Precision:
    """The fastest precision that is safe here: bf16 on CUDA from compute capability 8.0, else fp16; fp32 elsewhere.

    The capability decides, not `torch.cuda.is_bf16_supported()`: a T4 (7.5) answers yes and emulates it.
    `capability` stands in for the GPU's own answer (for tests and lessons).
    """
    if wanted != "auto":
        if not isinstance(wanted, str) or wanted not in PRECISIONS:
            raise CourseError(f"Precision must be auto, {', '.join(PRECISIONS)}, not {wanted!r}.")
        if wanted == "fp16" and device.type == "cpu":
            raise CourseError("fp16 with a gradient scaler is for GPUs; on the CPU use fp32 (or bf16).")
        return PRECISIONS[wanted]
    if device.type != "cuda":
        return PRECISIONS["fp32"]
    return PRECISIONS["bf16" if (capability or torch.cuda.get_device_capability(device)) >= (8, 0) else "fp16"]


def budget(*, cpu: T, gpu: T, device: str | torch.device = "auto") -> T:
    """`cpu` on a CPU, `gpu` on a GPU: the one line by which a lesson trains small in CI and fully on Colab.

    Example: `max_steps = budget(cpu=300, gpu=5000)`.
    """
    return cpu if pick_device(device).type == "cpu" else gpu


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished; without this a GPU timing measures only how fast work is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_per_call(f: Callable[[], object], device: torch.device, repeats: int = 5, warmup: int = 2) -> float:
    """Median wall-clock seconds of `f()`, after `warmup` calls that are not counted."""
    times = []
    for i in range(warmup + repeats):
        synchronize(device)
        start = time.perf_counter()
        f()
        synchronize(device)
        if i >= warmup:
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def describe(device: torch.device) -> dict[str, str | int | float]:
    """What a recorded run says about its machine: processor or GPU, memory in GiB, threads, versions."""
    facts: dict[str, str | int | float] = {
        "device": device.type,
        "name": cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "system": platform.system(),
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        facts |= {"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)}
        facts["capability"] = f"{gpu.major}.{gpu.minor}"
    return facts


def cpu_name() -> str:
    """The processor's own name where the system tells it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's global random numbers: of the CPU, and of `device` if it has its own."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_state(device: torch.device, states: dict[str, Tensor]) -> None:
    """Go back to what `random_state` returned; what was saved for another kind of device is left out."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


def join_process_group(device: str | torch.device = "auto") -> tuple[int, int, torch.device]:
    """Rank, number of processes and device of this process; joins the group if `torchrun` started it.

    Each process takes the GPU of its own number. Raises CourseError if there are more processes than GPUs.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1
    own = pick_device(device)
    if world_size == 1:
        return 0, 1, own
    if own.type == "cuda":
        own = pick_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(own)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
    return dist.get_rank(), world_size, own
