"""The rules of the lesson standard: what a program can check of it, one after the other.

A rule looks at one lesson and yields its problems, each with its line and one sentence that says what to do.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from course_config import Course
from deck import STOP
from labels import Labels
from lesson import Lesson, bound, dotted, loaded, without_code

from llmcourse import checks, quiz
from llmcourse.errors import CourseError

CHECKED = "nbval-check-output"
MOST_LINES, FEWEST_LINES, SHORT_SHARE = 30, 5, 0.5


class Problem(NamedTuple):
    line: int  # from 1
    text: str


Rule = Callable[[Lesson], Iterator[Problem]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    RULES.append(function)
    return function


# ---- 1. The opening ------------------------------------------------------------------------------------------


@rule
def front_matter(lesson: Lesson) -> Iterator[Problem]:
    form = lesson.front_matter.get("jupytext", {}).get("text_representation", {})
    kernel = lesson.front_matter.get("kernelspec", {})
    if form.get("format_name") != "myst" or form.get("extension") != ".md" or kernel.get("name") != "python3":
        yield Problem(1, "The front matter must have format_name: myst, extension: .md and the kernelspec python3.")


@rule
def title_and_promise(lesson: Lesson) -> Iterator[Problem]:
    titles = [(at, text) for at, text in lesson.prose if text.startswith("# ")]
    if len(titles) != 1:
        yield Problem(titles[1][0] if titles else 1, f"A lesson has one title (# ...), this one has {len(titles)}.")
        return
    line, title = titles[0]
    if lesson.kind and not re.match(rf"# {lesson.kind} · \S", title):
        yield Problem(line, f"The title must begin with “# {lesson.kind} · ”.")
    opening = [(at, text) for at, text in lesson.prose if at > line and at < first_block(lesson)]
    promise = re.fullmatch(r"\*\*(.+)\*\*", opening[0][1].strip()) if opening else None
    at = opening[0][0] if opening else line
    if not promise or not re.search(r"[.!?]$", promise[1]):
        yield Problem(at, "Right below the title stands the promise: one sentence in bold, with its period.")
    elif re.search(r"[.!?]\s", promise[1]):
        yield Problem(at, "The promise below the title is more than one sentence.")
    text = "\n".join(text for _, text in opening)
    if not re.search(r"\*You need:?\*", text) or not re.search(r"\*Time:?\*", text):
        yield Problem(at, "Before the first box or cell, say “*You need:* ...” and “*Time:* ...”.")


def first_block(lesson: Lesson) -> int:
    """The line of the first box, cell or section."""
    blocks = [d.start + 1 for d in lesson.directives]
    return min([*blocks, *(at for at, text in lesson.prose if text.startswith("## ")), len(lesson.lines) + 1])


@rule
def place_in_the_book(lesson: Lesson) -> Iterator[Problem]:
    path = lesson.course.notebook_path(lesson.docname)
    if not path.is_file():
        name = path.relative_to(lesson.course.root)
        yield Problem(1, f"Its Colab button would open {name}, which does not exist: run `make notebooks`.")
    if lesson.docname not in lesson.course.toc:
        yield Problem(1, "It is not listed in _toc.yml, so it is not in the book.")


# ---- 2 and 3. Boxes ------------------------------------------------------------------------------------------


@rule
def guess_first(lesson: Lesson) -> Iterator[Problem]:
    boxes = lesson.named("guess")
    runs = [cell.line for cell in lesson.cells if is_run(cell.tree) or figures_of(cell.tree)]
    if not boxes:
        yield Problem(1, "There is no {guess} box: ask for a prediction before the first run.")
    elif runs and boxes[0].start + 1 > runs[0]:
        yield Problem(runs[0], "The first {guess} box comes after this first run or plot: ask before showing.")
    elif "?" not in lesson.body(boxes[0]):
        yield Problem(boxes[0].start + 1, "The {guess} box has no question mark: ask for something.")


@rule
def plain_words(lesson: Lesson) -> Iterator[Problem]:
    boxes = lesson.named("plain")
    if not boxes:
        yield Problem(1, "There is no {plain} box: give an analogy of your own.")
    for box in boxes:
        if not re.search(r"\bbr(ea|o)k", lesson.body(box)):
            yield Problem(box.start + 1, "The {plain} box does not say where its picture breaks.")


@rule
def in_the_field(lesson: Lesson) -> Iterator[Problem]:
    boxes = lesson.named("field")
    if not boxes:
        yield Problem(1, "There is no {field} box: say what real systems do.")
    known = citations(lesson.course)
    for box in boxes:
        keys = re.findall(r"\{cite(?::\w+)?\}`([^`]*)`", lesson.body(box))
        cited = [key.strip() for group in keys for key in group.split(",")]
        if not cited:
            yield Problem(box.start + 1, "The {field} box cites nothing: add a {cite} to its source.")
        for key in cited:
            if key not in known:
                yield Problem(box.start + 1, f"{{cite}}`{key}` is not in book/references.bib.")


def citations(course: Course) -> set[str]:
    labels = Labels(course)
    file = course.book / "references.bib"
    if file.exists():
        labels.add_bibliography(file.read_text("utf-8"))
    return set(labels.citations)


# ---- 4. Real computation -------------------------------------------------------------------------------------

MEASURES = re.compile(r"loss|eval|nll|generate|measure|entropy|sample|score|accuracy|count|bench|time|norm|decode")


def figures_of(tree: ast.AST) -> list[ast.Call]:
    """The calls of `plots.show`."""
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and dotted(n.func) in ("plots.show", "show")]


def is_run(tree: ast.AST) -> bool:
    """Whether a cell trains, evaluates again and again, takes the time, or loads a recorded run (a guess)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name, last = dotted(node.func), dotted(node.func).rpartition(".")[2] or getattr(node.func, "attr", "")
            if last in ("step", "backward", "Trainer", "perf_counter", "timeit", "evaluate", "nll"):
                return True
            if last.startswith("train") or name == "runs.load":
                return True
        if isinstance(node, (ast.For, ast.While, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)):
            inside = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
            if any(MEASURES.search(getattr(f, "attr", getattr(f, "id", ""))) for f in inside):
                return True
    return False


@rule
def a_run_and_a_figure(lesson: Lesson) -> Iterator[Problem]:
    if not any(is_run(cell.tree) for cell in lesson.cells):
        yield Problem(1, "No cell trains, evaluates or measures anything.")
    if not any(figures_of(cell.tree) for cell in lesson.cells):
        yield Problem(1, "There is no figure: draw one with plots.show(..., alt=..., caption=...).")
    for cell in lesson.cells:
        for call in figures_of(cell.tree):
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            if "alt" not in given or "caption" not in given:
                yield Problem(cell.line_of(call), "plots.show needs alt= and caption=.")
                continue
            alt = given["alt"]
            if isinstance(alt, ast.Constant) and len(str(alt.value)) < 40:
                yield Problem(cell.line_of(call), "The alt text is too short: say what the figure shows.")
        for name, call in cell.calls():
            if name in ("plt.show", "plt.savefig", "fig.savefig", "fig.show"):
                yield Problem(cell.line_of(call), f"{name} shows a figure without words: use plots.show.")


# ---- 5. Numbers ----------------------------------------------------------------------------------------------


@rule
def no_typed_results(lesson: Lesson) -> Iterator[Problem]:
    for cell in lesson.cells:
        lines = cell.source.split("\n")
        for node in ast.walk(cell.tree):
            if not isinstance(node, (ast.List, ast.Tuple, ast.Set, ast.Dict)):
                continue
            values = node.values if isinstance(node, ast.Dict) else node.elts
            numbers = [n.value for n in values if isinstance(n, ast.Constant) and isinstance(n.value, float)]
            precise = [x for x in numbers if len(f"{x:.6g}".replace(".", "").strip("0")) >= 3]
            around = "\n".join(lines[max(0, node.lineno - 2) : node.end_lineno])
            if len(precise) >= 4 and not re.search(r"#.*\b(source|cite|published)", around):
                text = "looks like typed results: compute them, or name where they are from (# source: ...)."
                yield Problem(cell.line_of(node), f"This list of {len(numbers)} numbers {text}")


NUMBER = re.compile(r"(?<![\w.,-])(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+)(?![\w.]*\d)(?:\s*(million|billion|%))?")
IN_CODE = re.compile(r"\d{1,3}(?:[,_]\d{3})+(?:\.\d+)?|\d+\.?\d*(?:e[+-]?\d+)?")
SCALE = {"million": 1e6, "billion": 1e9, "%": 0.01, "": 1.0}


@rule
def numbers_are_computed(lesson: Lesson) -> Iterator[Problem]:
    """Numbers with a decimal point or a thousands comma; needs a page that has been run."""
    if lesson.outputs is None:
        return
    code = "\n".join(cell.source for cell in lesson.cells)
    shown = {float(n.replace(",", "").replace("_", "")) for n in IN_CODE.findall(f"{code}\n{lesson.outputs}")}
    cited = [line for box in lesson.named("field") for line in range(box.start + 1, box.end + 1)]
    for line, text in lesson.prose:
        if line in cited or re.search(r"\*Time:?\*|\{cite|https?:", text):
            continue  # what has a source needs no cell
        for number, unit in NUMBER.findall(without_code(text)):
            digits = len(number.partition(".")[2])
            value = float(number.replace(",", ""))
            scales = {SCALE[unit], 1.0}
            if not any(abs(x / scale - value) <= 0.501 * 10**-digits for x in shown for scale in scales):
                yield Problem(line, f"No cell prints or asserts the number {number}.")


# ---- 6. Equality ---------------------------------------------------------------------------------------------


@rule
def proven_equal(lesson: Lesson) -> Iterator[Problem]:
    for cell in (cell for cell in lesson.cells if not cell.in_solution):
        for name, _ in cell.calls():
            if name.rpartition(".")[2] in ("assert_close", "assert_allclose", "assert_array_equal", "assert_equal"):
                return
        for node in ast.walk(cell.tree):
            if isinstance(node, ast.Assert) and compares(node.test):
                return
    yield Problem(1, "Nothing is proven equal to PyTorch, tiktoken, transformers or llmcourse: assert_close, say.")


def compares(test: ast.expr) -> bool:
    """`assert torch.equal(a, b)`, `assert allclose(a, b)`, or `assert f(a) == g(b)` with a call on either side."""
    for node in ast.walk(test):
        if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in ("equal", "allclose", "array_equal"):
            return True
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq):
            right = node.comparators[0]
            if not isinstance(right, ast.Constant) and not isinstance(node.left, ast.Constant):
                return True
    return False


# ---- 7. Exercises --------------------------------------------------------------------------------------------


@rule
def exercises(lesson: Lesson) -> Iterator[Problem]:
    found = lesson.named("exercise", "exercise-start")
    if len(found) < 2:
        yield Problem(1, f"There are {len(found)} exercises: a lesson has two or more, one of them open.")
    solved = {solution.argument.strip(): solution for solution in lesson.solutions}
    for exercise in found:
        line, label = exercise.start + 1, re.search(r":label:\s*(\S+)", lesson.body(exercise))
        if not exercise.argument:
            yield Problem(line, "The exercise has no title.")
        if not label or label[1] not in solved:
            yield Problem(line, "The exercise has no solution: give it a :label:, and a {solution-start} to that.")
    for solution in lesson.solutions:
        if not re.search(r":?class:.*\bdropdown\b", lesson.body(solution)):
            yield Problem(solution.start + 1, "The solution is open: add `:class: dropdown`.")
    if lesson.solutions and not any(cell.in_solution for cell in lesson.cells):
        yield Problem(lesson.solutions[0].start + 1, "No solution is executed: put its code between the gates.")


def calls_named(lesson: Lesson, name: str, prefix: str) -> list[tuple[int, str, bool]]:
    """Line, argument and whether it is in a solution, of each `name("prefix...")`."""
    return [
        (cell.line_of(call), str(call.args[0].value), cell.in_solution)
        for cell in lesson.cells
        for called, call in cell.calls()
        if called.rpartition(".")[2] == name and call.args and isinstance(call.args[0], ast.Constant)
        if str(call.args[0].value).startswith(prefix)
    ]


@rule
def checked_exercise(lesson: Lesson) -> Iterator[Problem]:
    for line, _, in_solution in calls_named(lesson, "solution", ""):
        if not in_solution:
            yield Problem(line, "This cell prints a solution outside of {solution-start} ... {solution-end}.")
    if not lesson.kind:
        return
    name, found = lesson.name, calls_named(lesson, "check", lesson.name)
    if not any(not in_solution for *_, in_solution in found):
        yield Problem(1, f'No cell calls check("{name}", ...) on the stub.')
    elif not any(in_solution for *_, in_solution in found):
        yield Problem(found[0][0], f'The solution does not show that it passes check("{name}", ...).')
    for line, called, _ in found:
        if called not in checks.names():
            yield Problem(line, f"There is no exercise {called!r} in llmcourse.checks.")
            return
        if not checks.find(called).hints:
            yield Problem(line, f"The exercise {called!r} has no hints.")
    if not any("raise NotImplementedError" in cell.source and not cell.in_solution for cell in lesson.cells):
        yield Problem(1, "There is no stub: the exercise starts from a function that raises NotImplementedError.")
    if f'hint("{name}' not in "\n".join(lesson.lines):
        yield Problem(1, f'The page does not tell the reader of hint("{name}").')


@rule
def readable_without_solutions(lesson: Lesson) -> Iterator[Problem]:
    """The student edition leaves the cells of solutions out, and the others must still run."""
    taken: set[str] = set()
    for cell in lesson.cells:
        if cell.in_solution:
            taken |= bound(cell.tree)
            continue
        for name, line in loaded(cell.tree).items():
            if name in taken and name not in bound(cell.tree):
                text = f"`{name}` comes from a solution, which the student edition leaves out."
                yield Problem(cell.line + line - 1, text)
        taken -= bound(cell.tree)


# ---- 8. The quiz ---------------------------------------------------------------------------------------------


def questions(lesson: Lesson) -> int:
    """How many questions its quiz has; CourseError if there is none."""
    return len(quiz.quiz(lesson.name, lesson.course.root / "llmcourse" / "quizzes").questions)


@rule
def quiz_of_the_lesson(lesson: Lesson) -> Iterator[Problem]:
    least, most = (3, 5) if lesson.kind else (12, 12)
    try:
        if not least <= (number := questions(lesson)) <= most:
            wanted = f"{least} to {most}" if lesson.kind else f"{most}"
            yield Problem(1, f"Its quiz has {number} questions, not {wanted}.")
    except CourseError as error:
        yield Problem(1, f"llmcourse/quizzes/{lesson.name}.toml: {error}")
    if not any(called == lesson.name for _, called, _ in calls_named(lesson, "quiz", lesson.name)):
        yield Problem(1, f'No cell shows the quiz: quiz("{lesson.name}").')


# ---- 9. Terms, takeaways, sources ----------------------------------------------------------------------------


@rule
def frame_of_the_text(lesson: Lesson) -> Iterator[Problem]:
    terms = sum(text.count("{term}`") for _, text in lesson.prose)
    if terms < 3:
        yield Problem(1, f"There are {terms} links to the glossary: {{term}} belongs to the first use of each term.")
    text = "\n".join(text for _, text in lesson.prose)
    after = re.search(r"^(?:\*\*|#+ )(?:Keep this|(?:Key )?[Tt]akeaways|What to keep)\b.*\n((?:.*\n?)*)", text, re.M)
    if not after or len(re.findall(r"^[-*] ", after[1], re.M)) < 3:
        yield Problem(1, "There are no key takeaways: “**Keep this:**” and a list of three or more.")
    if not re.search(r"^(?:\*\*|#+ )Sources", text, re.M):
        yield Problem(1, "There are no sources: end with “**Sources:** ...”.")


MOST_WORDS = 70  # on a slide


@rule
def stops_of_the_tour(lesson: Lesson) -> Iterator[Problem]:
    if not lesson.docname.startswith("book/tour/"):
        return
    stops = [(line, text) for line, text in lesson.prose if text.startswith("## Stop")]
    if not stops:
        yield Problem(1, "A page of the tour has stops: “## Stop 6 · Tokens”.")
    for line, text in stops:
        if not STOP.match(text):
            yield Problem(line, "The heading of a stop is “## Stop 6 · Tokens”.")
        lead = next((d for d in lesson.named("slide") if d.start >= line), None)
        if lead is None or any(between.strip() for between in lesson.lines[line : lead.start]):
            yield Problem(line, "Right below the heading of a stop stands its {slide}.")
            continue
        body = "\n".join(lesson.lines[lead.start + 1 : lead.end - 1])
        if (number := len(without_code(body).split())) > MOST_WORDS:
            yield Problem(lead.start + 1, f"This slide has {number} words, more than the {MOST_WORDS} that fit.")
        if "$" in without_code(body) or "{cite" in body:
            yield Problem(lead.start + 1, "A slide has no formula and no {cite}: the deck cannot show them.")


# ---- 10. Time ------------------------------------------------------------------------------------------------


@rule
def progress_bars(lesson: Lesson) -> Iterator[Problem]:
    for cell in lesson.cells:
        if "tqdm.auto" in cell.source or "tqdm.notebook" in cell.source:
            yield Problem(cell.line, "Use `from tqdm import tqdm`: the other bars need a widget that the page has not.")


# ---- 11. Cells and language ----------------------------------------------------------------------------------


def is_small_by_nature(cell: ast.Module) -> bool:
    """Imports only, or one statement that shows a quiz, a check or a hint."""
    if all(isinstance(s, (ast.Import, ast.ImportFrom)) for s in cell.body):
        return True
    names = {dotted(n.func).rpartition(".")[2] for n in ast.walk(cell) if isinstance(n, ast.Call)}
    return bool(names & {"quiz", "check", "hint", "solution", "slider", "player"})


def short_cells(lesson: Lesson) -> int:
    return sum(cell.length < FEWEST_LINES and not is_small_by_nature(cell.tree) for cell in lesson.cells)


@rule
def cells_of_a_readable_length(lesson: Lesson) -> Iterator[Problem]:
    for cell in lesson.cells:
        if cell.length > MOST_LINES:
            yield Problem(cell.line, f"This cell has {cell.length} lines, more than the {MOST_LINES} a reader follows.")
        if cell.source.strip() and not cell.tree.body:
            yield Problem(cell.line, "This cell is no Python: it cannot be read.")
    if (short := short_cells(lesson)) > SHORT_SHARE * len(lesson.cells):
        yield Problem(1, f"{short} of {len(lesson.cells)} cells have fewer than {FEWEST_LINES} lines: join some.")


EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u26ff\u2705\u2728\u274c\u2764\ufe0f]")
FILLERS = re.compile(
    r"\b(exciting|excited|delv(?:e|es|ing)|simply put|needless to say|dive (?:in|into|deep)|deep dive|"
    r"(?:it is|it's) (?:important|worth) (?:to note|noting)|game.changer|cutting.edge|seamless(?:ly)?|unleash|"
    r"supercharge|revolutionary|effortless(?:ly)?|in today's|buckle up|without further ado|tapestry|ever-evolving)\b",
    re.I,
)


@rule
def plain_language(lesson: Lesson) -> Iterator[Problem]:
    for line, text in lesson.prose:
        words = without_code(text)
        if EMOJI.search(words):
            yield Problem(line, "There is an emoji in the text.")
        if filler := FILLERS.search(words):
            yield Problem(line, f"“{filler[0]}” is filler: say the thing itself.")


# ---- 12. Seeds and checked outputs ---------------------------------------------------------------------------

RANDOM = re.compile(
    r"\b(?:torch|np\.random|random)\.(?:rand|randn|randint|randperm|normal|choice|shuffle)\b|multinomial\(|"
    r"\bnn\.(?:Linear|Embedding)\(|\bGPT\(|\bTrainer\("
)
SEED = re.compile(r"manual_seed\(|\bseed\s*=|\bseed\(|default_rng\(\s*\d")


@rule
def seeds_and_checked_outputs(lesson: Lesson) -> Iterator[Problem]:
    first = next((cell for cell in lesson.cells if RANDOM.search(cell.source)), None)
    if first and not any(SEED.search(cell.source) for cell in lesson.cells):
        yield Problem(first.line, "Random numbers are used and no seed is set: call torch.manual_seed(...) first.")
    checked = sum(CHECKED in cell.tags for cell in lesson.cells)
    if checked < 3:
        yield Problem(1, f"{checked} cells are tagged {CHECKED}, and a lesson has at least three.")
