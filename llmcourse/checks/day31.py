"""Checkers of day 31: reading a training log, and three answers from the recorded runs.

A report is five numbers of one log, so each typical mistake is a function that gets one of them wrong. The learner's
numbers are compared with the right ones on logs where the mistakes differ: resumed runs, nan, a target never reached.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

from .. import runs
from . import Wrong, blame, exercise

Log = list[dict[str, Any]]
Number = float | None
KEYS = ("best", "tokens", "clipped", "outside", "gap")
NAN = math.nan


def report(log: Log, target: float, clip: float) -> dict[str, Number]:
    """What a log says: best, tokens, clipped, outside, gap."""
    kept: Log = []
    for r in log:
        kept = [old for old in kept if old["step"] < r["step"]] + [r]  # what a resumed run has undone is dropped
    evals = [r for r in kept if "val_loss" in r]
    real = [r for r in evals if not math.isnan(r["val_loss"])]
    hits = [r["tokens"] for r in evals if r["val_loss"] <= target]  # False for nan
    norms = [r["grad_norm"] for r in kept if "grad_norm" in r]
    stepping, tokens = 0.0, 0
    for r in kept:
        if "tokens_per_second" in r:
            stepping += (r["tokens"] - tokens) / r["tokens_per_second"]
        tokens = r["tokens"]
    both = [r for r in evals if "loss" in r][-1]
    return {
        "best": min(real, key=lambda r: r["val_loss"])["step"],
        "tokens": hits[0] if hits else None,
        "clipped": sum(norm > clip for norm in norms) / len(norms),
        "outside": kept[-1]["seconds"] - stepping,
        "gap": both["val_loss"] - both["loss"],
    }


# The logs of the check


def made(*rows: tuple[Any, ...], first: float | None = 4.2, per_step: int = 512, start: float = 1.5) -> Log:
    """A log from rows (step, loss, grad_norm, tokens per second, seconds elsewhere, val_loss or None)."""
    log: Log = [] if first is None else [{"step": 0, "tokens": 0, "val_loss": first}]
    seconds, before = start, 0
    for step, loss, norm, speed, elsewhere, val_loss in rows:
        seconds += max(step - before, 10) * per_step / speed + elsewhere
        record = {"step": step, "tokens": step * per_step, "lr": 1e-3, "loss": loss, "grad_norm": norm}
        record |= {"seconds": seconds, "tokens_per_second": speed}
        log.append(record if val_loss is None else record | {"val_loss": val_loss})
        before = step
    return log


PLAIN = made(
    (10, 3.4, 1.9, 1000.0, 0.0, None), (20, 3.0, 1.2, 800.0, 0.0, 2.9), (30, 2.7, 0.7, 1000.0, 3.0, None),
    (40, 2.5, 1.0, 400.0, 0.0, 2.4), (50, 2.2, 0.6, 1000.0, 2.5, None), (60, 2.0, 1.4, 900.0, 0.0, 2.5),
    (70, 1.9, 0.4, 700.0, 2.0, None), (80, 1.7, 0.8, 1000.0, 0.0, 2.6),
)  # fmt: skip
UNFINISHED = made(
    (10, 3.3, 0.9, 900.0, 0.0, 3.1), (20, 2.9, 0.3, 500.0, 2.0, 2.6), (30, 2.4, 0.6, 900.0, 2.0, 2.6),
    (40, 2.3, 0.7, 950.0, 1.0, 2.8), (50, 2.1, 0.2, 900.0, 1.0, None),
    first=None,
)  # fmt: skip
BROKEN = made(
    (10, 3.5, 2.5, 900.0, 0.0, NAN), (20, 3.1, 0.4, 850.0, 1.0, 2.8), (30, 2.8, 1.1, 700.0, 0.0, 2.7),
    (40, 2.6, 0.9, 900.0, 2.0, 2.75), (50, 2.9, 3.0, 900.0, 0.0, NAN), (60, 3.3, 0.5, 900.0, 0.0, 3.0),
    first=NAN,
)  # fmt: skip
RESUMED = made(
    (10, 3.4, 0.5, 1000.0, 0.0, None), (20, 3.0, 0.6, 900.0, 0.0, 2.8), (30, 2.6, 2.0, 1000.0, 1.0, None),
    (40, 2.3, 2.2, 500.0, 0.0, 2.1), (50, 2.2, 2.4, 1000.0, 2.0, None),  # 30 to 50 are undone
    (30, 2.7, 0.7, 1000.0, 1.0, None), (40, 2.6, 0.8, 800.0, 0.0, 2.5), (50, 2.3, 1.2, 1000.0, 1.5, None),
    (60, 2.1, 0.3, 950.0, 0.0, 2.3),
)  # fmt: skip
TWICE = RESUMED[:6] + made(
    (25, 2.9, 1.6, 800.0, 1.0, 2.75), (35, 2.7, 0.6, 900.0, 0.0, 2.6), (45, 2.5, 0.2, 900.0, 1.0, 2.55),
    first=None, start=60.0,
)  # fmt: skip
CASES: list[tuple[Log, float, float]] = [
    (PLAIN, 2.4, 1.0), (PLAIN, 2.0, 0.65), (UNFINISHED, 2.6, 0.6), (BROKEN, 2.8, 1.0),
    (RESUMED, 2.2, 1.0), (RESUMED, 2.3, 1.0), (TWICE, 2.58, 1.0),
]  # fmt: skip


# The mistakes, each for one of the numbers


def cleaned(log: Log) -> Log:
    kept: Log = []
    for r in log:
        kept = [old for old in kept if old["step"] < r["step"]] + [r]
    return kept


def only_same(log: Log) -> Log:
    """The later record of each step, but steps that were undone and not repeated stay."""
    return list({r["step"]: r for r in log}.values())


def evals(log: Log, key: str = "val_loss") -> Log:
    return [r for r in log if key in r and not math.isnan(r[key])]


def both(log: Log) -> Log:
    return [r for r in log if "val_loss" in r and "loss" in r]


def hit(log: Log, reached: Callable[[dict[str, Any]], bool], what: str = "tokens", none: Number = None) -> Number:
    return next((r[what] for r in log if reached(r)), none)


def share(log: Log, above: Callable[[float], bool], everything: bool = False) -> float:
    norms = [r["grad_norm"] for r in log if "grad_norm" in r]
    return sum(map(above, norms)) / (len(log) if everything else len(norms))


def stepping(log: Log) -> float:
    total, tokens = 0.0, 0
    for r in log:
        if "tokens_per_second" in r:
            total += (r["tokens"] - tokens) / r["tokens_per_second"]
        tokens = r["tokens"]
    return total


def mean_speed(log: Log) -> float:
    speeds = [r["tokens_per_second"] for r in log if "tokens_per_second" in r]
    return log[-1]["seconds"] - log[-1]["tokens"] / (sum(speeds) / len(speeds))


Mistake = Callable[[Log, float, float], Number]
MISTAKES: dict[str, list[tuple[Mistake, str]]] = {
    "best": [
        (
            lambda log, t, c: evals(cleaned(log))[-1]["step"],
            "is the last evaluation: the best one is the lowest, often earlier.",
        ),
        (
            lambda log, t, c: min(evals(cleaned(log), "loss"), key=lambda r: r["loss"])["step"],
            "goes by the training loss: the best step has the lowest val_loss.",
        ),
        (
            lambda log, t, c: min(evals(cleaned(log))[::-1], key=lambda r: r["val_loss"])["step"],
            "is the later of two equal losses: the first one counts.",
        ),
        (
            lambda log, t, c: min((r for r in cleaned(log) if "val_loss" in r), key=lambda r: r["val_loss"])["step"],
            "is deceived by nan: every comparison with nan is False, so min keeps one that comes first; drop them.",
        ),
        (
            lambda log, t, c: cleaned(log).index(min(evals(cleaned(log)), key=lambda r: r["val_loss"])),
            "is a position in the list: return the record's step.",
        ),
        (
            lambda log, t, c: min(evals(cleaned(log)), key=lambda r: r["val_loss"])["val_loss"],
            "is a loss: return the step at which it was reached.",
        ),
        (
            lambda log, t, c: max(evals(cleaned(log)), key=lambda r: r["val_loss"])["step"],
            "is the evaluation with the highest loss: losses want to be low.",
        ),
    ],
    "tokens": [
        (
            lambda log, t, c: hit(evals(cleaned(log)), lambda r: r["val_loss"] <= t, "step"),
            "counts steps: return tokens.",
        ),
        (
            lambda log, t, c: hit(evals(cleaned(log), "loss"), lambda r: r["loss"] <= t),
            "goes by the training loss: the target is one for val_loss.",
        ),
        (
            lambda log, t, c: hit(evals(cleaned(log)), lambda r: r["val_loss"] < t),
            "misses a loss that is exactly the target: at most means <=.",
        ),
        (
            lambda log, t, c: hit(evals(cleaned(log))[::-1], lambda r: r["val_loss"] <= t),
            "belongs to the last evaluation below the target: the first one counts.",
        ),
        (
            lambda log, t, c: hit(evals(cleaned(log)), lambda r: r["val_loss"] <= t, none=0),
            "is 0 for a target that is never reached: return None, since 0 would be the fastest of all.",
        ),
        (
            lambda log, t, c: hit(evals(cleaned(log)), lambda r: r["val_loss"] <= t, none=math.inf),
            "is inf for a target that is never reached: return None.",
        ),
        (
            lambda log, t, c: hit(cleaned(log), lambda r: r is min(evals(cleaned(log)), key=lambda q: q["val_loss"])),
            "belongs to the best evaluation: the first one at or below the target counts.",
        ),
    ],
    "clipped": [
        (lambda log, t, c: share(cleaned(log), lambda n: n <= c), "is the share of steps that were not clipped."),
        (lambda log, t, c: share(cleaned(log), lambda n: n > 1.0), "uses a limit of 1: use clip."),
        (
            lambda log, t, c: share(cleaned(log), lambda n: n >= c),
            "counts a norm that equals the limit: only what is above it was shortened.",
        ),
        (
            lambda log, t, c: share(cleaned(log), lambda n: n > c, everything=True),
            "is divided by all records, also that of step 0, which has no norm.",
        ),
        (
            lambda log, t, c: 100 * share(cleaned(log), lambda n: n > c),
            "is a percentage: a share lies between 0 and 1.",
        ),
        (
            lambda log, t, c: sum(r.get("grad_norm", 0) > c for r in cleaned(log)),
            "is a number of records: divide by how many have a grad_norm.",
        ),
        (
            lambda log, t, c: share([r for r in cleaned(log) if "val_loss" in r], lambda n: n > c),
            "looks at the evaluations only: every record with a grad_norm counts.",
        ),
    ],
    "outside": [
        (lambda log, t, c: cleaned(log)[-1]["seconds"], "is the time of everything: take the time of the steps off."),
        (lambda log, t, c: stepping(cleaned(log)), "is the time of the steps themselves: the rest is asked for."),
        (
            lambda log, t, c: mean_speed(cleaned(log)),
            "comes from a mean of the speeds, in which slow intervals count too little: add up tokens / speed.",
        ),
        (lambda log, t, c: stepping(cleaned(log)) - cleaned(log)[-1]["seconds"], "has the wrong sign."),
        (
            lambda log, t, c: (
                cleaned(log)[-1]["seconds"]
                - sum(r["tokens"] / r["tokens_per_second"] for r in cleaned(log) if "loss" in r)
            ),
            "divides all tokens so far by the speed of one interval: take the difference to the record before.",
        ),
        (
            lambda log, t, c: 1 - stepping(cleaned(log)) / cleaned(log)[-1]["seconds"],
            "is a share of the time: seconds are asked for.",
        ),
    ],
    "gap": [
        (
            lambda log, t, c: both(cleaned(log))[-1]["loss"] - both(cleaned(log))[-1]["val_loss"],
            "has the wrong sign: validation minus training.",
        ),
        (
            lambda log, t, c: both(cleaned(log))[-1]["val_loss"] - evals(cleaned(log), "loss")[-1]["loss"],
            "mixes two records: both losses must come from the last record that has both.",
        ),
        (
            lambda log, t, c: (lambda r: r["val_loss"] - r["loss"])(
                min((r for r in both(cleaned(log)) if r["val_loss"] == r["val_loss"]), key=lambda r: r["val_loss"])
            ),
            "is that of the best evaluation: the last one is asked for.",
        ),
        (
            lambda log, t, c: min(r["val_loss"] for r in evals(cleaned(log)))
            - min(r["loss"] for r in evals(cleaned(log), "loss")),
            "takes the lowest loss of each column: both must come from one record, the last with both.",
        ),
        (
            lambda log, t, c: both(cleaned(log))[0]["val_loss"] - both(cleaned(log))[0]["loss"],
            "is that of the first evaluation: the last one is asked for.",
        ),
        (
            lambda log, t, c: abs(both(cleaned(log))[-1]["val_loss"] - both(cleaned(log))[-1]["loss"]),
            "lost its sign: a validation loss below the training loss is a finding.",
        ),
    ],
}  # fmt: skip
def keeps_equal(log: Log) -> Log:
    """Later records are dropped, but not the old one of the step to which the run went back."""
    kept: Log = []
    for r in log:
        kept = [old for old in kept if old["step"] <= r["step"]] + [r]
    return kept


UNDONE: list[tuple[Callable[[Log], Log], str]] = [
    (
        lambda log: log,
        "counts records that a resumed run has undone: where the step goes back, drop every earlier record of that "
        "step or a later one.",
    ),
    (
        only_same,
        "replaces repeated steps only: where the run goes back to step 25, the old records of 30, 40 and 50 are undone "
        "too.",
    ),
    (
        lambda log: list({r["step"]: r for r in reversed(log)}.values())[::-1],
        "keeps the first record of a repeated step: the later one is what happened in the end.",
    ),
    (
        keeps_equal,
        "keeps two records of one step: where the run goes back, the old record of that very step is undone too.",
    ),
]


@exercise(
    "day31",
    title="Reading a log",
    signature="report(log, target, clip)",
    hints=[
        "First throw away what was undone: go through the log and keep a list; before you append r, drop from it all "
        "records whose step is not below r['step'].",
        "Make lists of what each number needs: the records with val_loss (without nan), those with grad_norm, those "
        "with val_loss and loss. Then best is a min with a key, tokens the first hit or None, gap a difference.",
        "An interval between two records took (tokens now - tokens before) / tokens_per_second seconds. outside "
        "is the last record's seconds minus the sum of these.",
    ],
    solution=report,
    right="It reads unfinished, broken and resumed logs alike.",
)
def check_report(learner: Callable[..., Any]) -> None:
    answers = []
    for log, target, clip in CASES:
        given = copy.deepcopy(log)
        with blame(f"It fails for a log{describe(log)}"):
            found = learner(given, target, clip)
        if not same_log(given, log):
            raise Wrong("Your function changes the log, and the caller still needs it: make new lists instead.")
        answers.append(numbers(found))
    wanted = [report(*case) for case in CASES]
    for clean, sentence in UNDONE:  # one cause of several wrong numbers
        theirs = [{key: uncleaned(clean, key, *case) for key in KEYS} for case in CASES]
        if all(agree([a[key] for a in answers], [t[key] for t in theirs]) for key in KEYS):
            raise Wrong(f"Your function {sentence}")
    for key in KEYS:
        mine, right = [a[key] for a in answers], [w[key] for w in wanted]
        if agree(mine, right):
            continue
        for clean, sentence in UNDONE:
            if agree(mine, [uncleaned(clean, key, *case) for case in CASES]):
                raise Wrong(f'Your "{key}" {sentence}')
        for mistake, sentence in MISTAKES[key]:
            if agree(mine, [mistake(*case) for case in CASES]):
                raise Wrong(f'Your "{key}" {sentence}')
        i = next(i for i in range(len(CASES)) if not agree(mine[i : i + 1], right[i : i + 1]))
        log, target, clip = CASES[i]
        raise Wrong(
            f'In a log{describe(log)}, with target {target} and clip {clip}, your "{key}" is {shown(mine[i])} and '
            f"should be {shown(right[i])}."
        )


def uncleaned(clean: Callable[[Log], Log], key: str, log: Log, target: float, clip: float) -> Number:
    """The right number of a log from which nothing, or too little, was dropped."""
    log = clean(log)
    if key == "best":
        return int(min(evals(log), key=lambda r: r["val_loss"])["step"])
    if key == "tokens":
        return hit(evals(log), lambda r: r["val_loss"] <= target)
    if key == "clipped":
        return share(log, lambda n: n > clip)
    if key == "outside":
        return float(log[-1]["seconds"]) - stepping(log)
    return float(both(log)[-1]["val_loss"]) - float(both(log)[-1]["loss"])


def describe(log: Log) -> str:
    """What is special about one of the logs: " with nan in it"."""
    steps = [r["step"] for r in log]
    if steps != sorted(set(steps)):
        return " of a resumed run, whose steps go back"
    if any(x != x for r in log for x in r.values()):
        return " with nan in it"
    return " without a record of step 0" if steps[0] else " that begins with the short record of step 0"


def same_log(a: Log, b: Log) -> bool:
    return repr(a) == repr(b)


def numbers(found: Any) -> dict[str, Number]:
    """What the learner returned, if it is a dict with the five numbers."""
    if found is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if not isinstance(found, dict):
        raise Wrong(f"Your function returned something of type {type(found).__name__}: return a dict.")
    if missing := [key for key in KEYS if key not in found]:
        raise Wrong(f"The dict lacks the key {missing[0]!r}: it needs {', '.join(KEYS)}.")
    result: dict[str, Number] = {}
    for key in KEYS:
        value = found[key]
        if value is None and key == "tokens":
            result[key] = None
            continue
        try:
            result[key] = float(value)
        except (TypeError, ValueError):
            raise Wrong(f'"{key}" must be a number, not {type(value).__name__}.') from None
    return result


def agree(mine: list[Number], theirs: list[Number]) -> bool:
    return all(
        a is b
        if a is None or b is None
        else (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)
        for a, b in zip(mine, theirs, strict=True)
    )


def shown(x: Number) -> str:
    return "None" if x is None else f"{x:.6g}"


# The second exercise: answers from data


def values() -> dict[str, Any]:
    """The right answers, read from the runs as they are recorded now."""
    logs = {name: runs.load(name).log for name in ("cpu-gpt2", "growth", "tiny")}
    reached = {n: report(log, 1.8, 1.0)["tokens"] for n, log in logs.items()}
    steps = {n: [r for r in log if "loss" in r] for n, log in logs.items()}
    return {
        "sooner": min(reached, key=lambda n: math.inf if reached[n] is None else float(reached[n] or 0)),
        "last_clipped": [r["step"] for r in steps["growth"] if r["grad_norm"] > 1.0][-1],
        "peak": max(steps["cpu-gpt2"], key=lambda r: r["lr"])["step"],
    }


SOLUTION = """\
needs = {n: report(runs.load(n).log, 1.8, 1.0)["tokens"] for n in ("cpu-gpt2", "growth", "tiny")}
growth = [r for r in runs.load("growth").log if "loss" in r]
gpt2 = [r for r in runs.load("cpu-gpt2").log if "loss" in r]
answers = {
    "sooner": min(needs, key=needs.get),
    "last_clipped": [r["step"] for r in growth if r["grad_norm"] > 1][-1],
    "peak": max(gpt2, key=lambda r: r["lr"])["step"],
}
"""


@exercise(
    "day31b",
    title="Answers from data",
    signature="answers",
    hints=[
        "Your report() answers the first question: call it for each of the three logs with the target 1.8, and compare "
        'the "tokens".',
        "For the other two, go through runs.load(name).log and skip the record of step 0: it has no grad_norm, no lr.",
    ],
    solution=SOLUTION,
    right="All three read from the logs.",
    wants="value",
)
def check_values(answers: Any) -> None:
    right = values()
    if not isinstance(answers, dict):
        raise Wrong(f"Hand in a dict with the keys {', '.join(right)}, not something of type {type(answers).__name__}.")
    if missing := [key for key in right if answers.get(key) is None]:
        raise Wrong(f'There is no answer to "{missing[0]}" yet.')
    logs = {name: [r for r in runs.load(name).log if "loss" in r] for name in ("cpu-gpt2", "growth", "tiny")}
    sooner, clipped, peak = (answers[key] for key in right)
    if sooner != right["sooner"]:
        if sooner not in list(logs):
            raise Wrong(f'"sooner" is the name of a run, one of {", ".join(logs)}.')
        hits = {n: [r["step"] for r in log if r.get("val_loss", 9.9) <= 1.8] for n, log in logs.items()}
        if sooner == min(hits, key=lambda n: min(hits[n], default=math.inf)):
            raise Wrong('"sooner" is right for steps, but those of two runs are not alike: count characters.')
        raise Wrong('"sooner" did not need the fewest characters: look at the first evaluation with val_loss <= 1.8.')
    norms = [r["step"] for r in logs["growth"] if r["grad_norm"] > 1.0]
    if clipped != right["last_clipped"]:
        if clipped == norms[0]:
            raise Wrong('"last_clipped" is the first clipped step: the last one is asked for.')
        if clipped == len(norms):
            raise Wrong('"last_clipped" is how many records were clipped: the step of the last one is asked for.')
        if clipped == logs["growth"].index(next(r for r in logs["growth"] if r["step"] == norms[-1])):
            raise Wrong('"last_clipped" is a position in the list: the record\'s step is asked for.')
        raise Wrong('"last_clipped" is not the last record of growth with a grad_norm above 1.0.')
    if peak != right["peak"]:
        if peak == max(r["lr"] for r in logs["cpu-gpt2"]):
            raise Wrong('"peak" is a learning rate: the step at which it was logged is asked for.')
        if peak == logs["cpu-gpt2"][0]["step"]:
            raise Wrong('"peak" is the first record, and there the warmup has only begun.')
        raise Wrong('"peak" is not the record of cpu-gpt2 with the highest lr.')
