"""A universe of 100 books whose entropy is known exactly: the text for which "how good can a model get?" has an answer.

Nobody knows the lowest loss that is possible on Shakespeare. Here we do, because we wrote the author. Every book is
told by a small grammar: two heroes meet, go from place to place, find, lose and give away things. The author always
knows who and what may come next, and with which probability, so both of these are computed and not estimated:

- `entropy_rate()`, the mean surprise of the author's own choices, in nats per character. No model that has only the
  text before it can have a lower expected loss. The same number in nats per word: `entropy_rate(words)`.
- `distributions(text)`, the true probability of every next character, given the whole book so far. The difference of
  a model's loss and the entropy is its Kullback–Leibler divergence from these.

How it works: the author is a finite automaton. In each `State` there are a few ways to go on, the `Arc`s, each with a
text, a probability and the state that follows. No arc's text begins with another's, and none leaves the state open:
whoever has read the book so far knows which state the author is in. (Such a source is called unifilar. If two states
could tell the same story, the entropy would have no closed form: Blackwell 1957.)

What there is to learn reaches from spelling (a few letters) over habits (the fox likes some things better: this is
the same in all books) to memory: who the two heroes are, where they are, and who has the ring stands sentences ago.

    universe = Universe(seed=0)
    train, val, test = universe.split()       # 90, 5 and 5 whole books
    universe.entropy_rate()                   # nats per character
    universe.surprise(val).mean()             # what the author's own model scores on these very books
    universe.tasks("story", 100)              # questions with answers that a program can check

Sources: Shannon 1948 (entropy of a Markov source), Blackwell 1957.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from llmcourse.errors import CourseError, is_number

HEROES = {"cat": "She", "fox": "He", "king": "He", "miller": "He", "queen": "She", "witch": "She"}
PLACES = ("barn", "castle", "forest", "garden", "market", "mill")
THINGS = ("apple", "book", "crown", "lamp", "ring", "rose")
FOODS = ("bread", "cheese", "fish", "honey", "milk", "soup")
ADJECTIVES = ("clever ", "happy ", "old ", "proud ", "quiet ", "young ")
DEEDS = ("fears", "follows", "helps", "praises", "thanks", "trusts")
KINDS = ("fact", "story", "count")


class State(NamedTuple):
    """All that the author remembers: what stands next, the two heroes, who acts, where, and who has what."""

    next: str  # the kind of text that comes next
    first: str = ""
    second: str = ""
    actor: str = ""
    place: str = ""
    thing: str = ""
    holder: str = ""

    @property
    def other(self) -> str:
        """The hero who does not act."""
        return self.second if self.actor == self.first else self.first


class Arc(NamedTuple):
    """One way to go on: write `text`, with this `probability`, and be in `state`."""

    text: str
    probability: float
    state: State


START = State("title")


@dataclass(frozen=True)
class Task:
    """A question about the universe with one right answer; `steps` is the way there, where there is one."""

    question: str
    answer: str
    steps: str = ""

    def check(self, reply: str) -> bool:
        """Whether the last word of `reply` is the answer; case and punctuation do not count."""
        said = reply.lower().replace(".", " ").split()
        return bool(said) and said[-1] == self.answer


def words(text: str) -> int:
    """Number of words, to be given to `entropy_rate`."""
    return len(text.split())


class Universe:
    """One world: the habits of its heroes are drawn once from `seed`, then its books are written.

    `books`: how many; `sentences`: how many a book has on average, its title and its end not counted.
    Raises CourseError if either is below 1.
    """

    def __init__(self, seed: int = 0, books: int = 100, sentences: float = 80) -> None:
        numbers = is_number(books, whole=True) and is_number(sentences)
        if not numbers or books < 1 or not 1 <= sentences < math.inf:
            raise CourseError(f"A universe needs at least 1 book and 1 sentence, not {books} and {sentences}.")
        self.seed, self.size, self.sentences = seed, books, sentences
        # Only random() is used: its numbers are the same in every version of Python.
        draw = random.Random(f"world {seed}")
        homes = sorted(PLACES, key=lambda _: draw.random())
        self.home = dict(zip(HEROES, homes, strict=True))
        # A hero's favorites come first: the one of rank r is drawn 1 / r times as often as the first.
        kinds = PLACES, THINGS, FOODS, ADJECTIVES, DEEDS
        self.habits: dict[str, dict[tuple[str, ...], list[str]]] = {
            hero: {kind: sorted(kind, key=lambda _: draw.random()) for kind in kinds} for hero in HEROES
        }
        self._arcs: dict[State, tuple[Arc, ...]] = {}
        self._next: dict[State, dict[str, dict[str, float]]] = {}

    # ---- the grammar --------------------------------------------------------------------------------------------

    def arcs(self, state: State) -> tuple[Arc, ...]:
        """The ways to go on from `state`; their probabilities sum to 1, and no text begins with another's."""
        if state not in self._arcs:
            weighted = list(self._grammar(state))
            total = sum(weight for _, weight, _ in weighted)
            self._arcs[state] = tuple(Arc(text, w / total, after) for text, w, after in weighted if w > 0)
        return self._arcs[state]

    def _grammar(self, s: State) -> Iterator[tuple[str, float, State]]:
        """(text, weight, next state) of every way to go on: the whole grammar, a stage at a time."""
        if s.next == "title":  # two heroes, every pair as likely
            for a in HEROES:
                for b in HEROES:
                    if a != b:
                        after = State("opening", min(a, b), max(a, b), actor=a, place=self.home[a])
                        yield f"THE {a.upper()} AND THE {b.upper()}\n", 1, after
        elif s.next == "opening":
            yield f"The {s.actor} lives in the {s.place}. ", 1, s._replace(next="sentence")
        elif s.next == "sentence":  # who acts? "She" or "He" is whoever acted last
            going_on = self.sentences - 1
            yield "The end.\n\n", 1, START
            yield f"{HEROES[s.actor]} ", going_on * 0.3, s._replace(next="deed")
            for hero, share in ((s.actor, 0.2), (s.other, 0.5)):
                after = s._replace(next="deed", actor=hero)
                yield f"The {hero} ", going_on * share / 2, after
                for adjective, p in self._favorites(hero, ADJECTIVES):
                    yield f"The {adjective}{hero} ", going_on * share / 2 * p, after
        elif s.next == "deed":
            after = s._replace(next="sentence")
            yield "goes to the ", 3, s._replace(next="place")
            yield f"sleeps in the {s.place}. ", 1, after
            yield "wants ", 2, s._replace(next="food")
            for deed, p in self._favorites(s.actor, DEEDS):
                yield f"{deed} the {s.other}. ", 2 * p, after
            if not s.thing:
                yield "finds the ", 2, s._replace(next="thing")
            elif s.holder == s.actor:
                yield f"gives the {s.thing} to the {s.other}. ", 1, after._replace(holder=s.other)
                yield f"loses the {s.thing}. ", 1, after._replace(thing="", holder="")
        elif s.next == "place":  # a new place, a new paragraph
            for place, p in self._favorites(s.actor, PLACES, without=s.place):
                yield f"{place}.\n", p, s._replace(next="sentence", place=place)
        elif s.next == "thing":
            for thing, p in self._favorites(s.actor, THINGS):
                yield f"{thing}. ", p, s._replace(next="sentence", thing=thing, holder=s.actor)
        elif s.next == "food":
            for food, p in self._favorites(s.actor, FOODS):
                yield f"{food}. ", p, s._replace(next="sentence")

    def _favorites(self, hero: str, kind: tuple[str, ...], without: str = "") -> list[tuple[str, float]]:
        """(word, probability) of what this hero likes, the favorite first."""
        ranked = [(word, 1 / rank) for rank, word in enumerate(self.habits[hero][kind], 1) if word != without]
        total = sum(weight for _, weight in ranked)
        return [(word, weight / total) for word, weight in ranked]

    # ---- the books ----------------------------------------------------------------------------------------------

    @cached_property
    def books(self) -> tuple[str, ...]:
        """The books, in order; the same seed always writes the same ones."""
        draw = random.Random(f"books {self.seed}")
        return tuple(self.write(draw) for _ in range(self.size))

    def write(self, draw: random.Random) -> str:
        """One more book, by the same author."""
        state, parts = START, list[str]()
        while state != START or not parts:
            text, state = self._choose(state, draw)
            parts.append(text)
        return "".join(parts)

    def _choose(self, state: State, draw: random.Random) -> tuple[str, State]:
        left = draw.random()
        for arc in self.arcs(state):
            left -= arc.probability
            if left < 0:
                break
        return arc.text, arc.state

    def split(self, val: int = 5, test: int = 5) -> tuple[str, str, str]:
        """Training, validation and test text, cut between books; the last ones are held out.

        Raises CourseError if no book would be left to train on.
        """
        if not all(is_number(n, whole=True) and n >= 0 for n in (val, test)) or val + test >= self.size:
            raise CourseError(f"{val} + {test} of {self.size} books cannot be held out: at least 1 must be left.")
        first, second = self.size - val - test, self.size - test
        parts = self.books[:first], self.books[first:second], self.books[second:]
        return tuple("".join(part) for part in parts)  # type: ignore[return-value]

    @property
    def alphabet(self) -> str:
        """Every character that can occur, sorted."""
        words = "".join((*HEROES, *HEROES.values(), *PLACES, *THINGS, *FOODS, *ADJECTIVES, *DEEDS))
        around = "THE AND THE \nThe lives in the . The end. goes to sleeps wants finds gives loses"
        return "".join(sorted({*words, *"".join(HEROES).upper(), *around}))

    # ---- what can be known of them --------------------------------------------------------------------------------

    def entropy_rate(self, size: Callable[[str], float] = len) -> float:
        """The lowest expected loss that any model can have: nats per character, or per whatever `size` counts.

        `size(text)` says how many units a piece of text has; it must add up over pieces.
        Exact: expected nats of a book over expected length of a book.
        """
        nats, length = self.expected_book(size)
        return nats / length

    def expected_book(self, size: Callable[[str], float] = len) -> tuple[float, float]:
        """Expected nats and expected length of one book.

        From each sentence on: what this sentence costs, plus what the rest of the book costs, averaged over the
        ways to go on. These equations are linear, and fall apart into one small system for each pair of heroes.
        """

        @cache
        def sentence(state: State) -> tuple[np.ndarray, dict[State, float]]:
            """Expected (nats, length) from `state` to the next sentence, and the chance of each state there."""
            cost, after = np.zeros(2), dict[State, float]()
            for text, p, following in self.arcs(state):
                cost += p * np.array([-math.log(p), size(text)])
                if following == START:  # the book ends
                    continue
                rest, ends = (0.0, {following: 1.0}) if following.next == "sentence" else sentence(following)
                cost += p * rest
                for end, q in ends.items():
                    after[end] = after.get(end, 0.0) + p * q
            return cost, after

        book, openings = sentence(START)
        while openings:
            row = {next(iter(openings)): 0}  # the sentences of one pair of heroes, and their numbers
            for state in (states := list(row)):
                for following in sentence(state)[1]:
                    if following not in row:
                        row[following] = len(row)
                        states.append(following)
            system = np.eye(len(row))  # I - P; P[i, j] is the chance to come from sentence i to sentence j
            for i, state in enumerate(states):
                for following, p in sentence(state)[1].items():
                    system[i, row[following]] -= p
            to_the_end = np.linalg.solve(system, [sentence(state)[0] for state in states])
            for state in row.keys() & openings.keys():
                book = book + openings[state] * to_the_end[row[state]]
            openings = {state: p for state, p in openings.items() if state not in row}
        return float(book[0]), float(book[1])

    def surprise(self, text: str) -> np.ndarray:
        """-ln p of each character of `text`, `(N,)`, under the true distribution; the text starts with a book.

        Raises CourseError if `text` could not have been written in this universe.
        """
        steps = list(self._walk(text))
        return np.array([-np.log(p[c]) for c, p in zip(text, steps, strict=True)])

    def distributions(self, text: str, alphabet: str | None = None) -> np.ndarray:
        """The true probability of every next character before each character of `text`, `(N, V)`.

        `text` starts with a book. `alphabet` gives the order of the V columns; None means `self.alphabet`.
        Raises CourseError if `text` could not have been written in this universe.
        """
        steps = list(self._walk(text))
        column = {c: i for i, c in enumerate(self.alphabet if alphabet is None else alphabet)}
        table = np.zeros((len(text), len(column)))
        for row, p in zip(table, steps, strict=True):
            for c, share in p.items():
                row[column[c]] = share
        return table

    def _walk(self, text: str) -> Iterator[dict[str, float]]:
        """The distribution of the next character before each character of `text`."""
        if not isinstance(text, str):
            raise CourseError(f"The universe reads text (str), not {type(text).__name__}; decode ids or join a list.")
        state, so_far = START, ""  # what is read of the arc
        for i, c in enumerate(text):
            p = self._continuations(state)[so_far]
            if c not in p:
                allowed = ", ".join(repr(a) for a in sorted(p))
                raise CourseError(
                    f"Character {i} ({c!r}) cannot stand after {text[max(0, i - 20) : i]!r} in this universe: "
                    f"only {allowed} can."
                )
            yield p
            so_far += c
            if so_far not in self._continuations(state):  # complete: no other arc begins with it
                state, so_far = next(arc.state for arc in self.arcs(state) if arc.text == so_far), ""

    def _continuations(self, state: State) -> dict[str, dict[str, float]]:
        """{what is read of an arc so far: {next character: probability}}, for every beginning of every arc."""
        if state not in self._next:
            table: dict[str, dict[str, float]] = {}
            for arc in self.arcs(state):
                for i, c in enumerate(arc.text):
                    after = table.setdefault(arc.text[:i], {})
                    after[c] = after.get(c, 0.0) + arc.probability
            for after in table.values():
                total = sum(after.values())
                after |= {c: p / total for c, p in after.items()}
            self._next[state] = table
        return self._next[state]

    # ---- questions with answers ------------------------------------------------------------------------------------

    def tasks(self, kind: str, number: int = 100, seed: int = 0, steps: int = 3) -> list[Task]:
        """Questions that a program can mark.

        kind "fact": what is the same in all books and has to be remembered; there are six of them.
        kind "story": who has the thing, after `steps` or more sentences; what counts stands in the question.
        kind "count": `steps` additions and subtractions within 0 … 9, with the way to the answer in `Task.steps`.
        Raises CourseError for another kind, and if `number` or `steps` is below 1.
        """
        enough = all(is_number(n, whole=True) and n >= 1 for n in (number, steps))
        if not isinstance(kind, str) or kind not in KINDS or not enough:
            raise CourseError(f"Ask for at least 1 task, of 1 step, of the kind {', '.join(KINDS)}, not {kind!r}.")
        draw = random.Random(f"{kind} {self.seed} {seed} {steps}")
        make = {"fact": self._fact, "story": self._story, "count": self._count}[kind]
        return [make(draw, steps) for _ in range(number)]

    def _fact(self, draw: random.Random, steps: int) -> Task:
        hero = _pick(tuple(HEROES), draw)
        return Task(f"Where does the {hero} live?", self.home[hero])

    def _story(self, draw: random.Random, steps: int) -> Task:
        """Sentences of a book, from its opening on, until enough have gone by and somebody has something."""
        state, told, sentences = self.arcs(START)[int(draw.random() * len(self.arcs(START)))].state, "", -1
        while sentences < steps or state.next != "sentence" or not state.thing:
            text, after = self._choose(state, draw)
            if after != START:  # the story is not to end before the question
                told, state = told + text, after
                sentences += state.next == "sentence"
        return Task(f"{told.strip()} Who has the {state.thing}?", state.holder)

    def _count(self, draw: random.Random, steps: int) -> Task:
        hero, thing = _pick(tuple(HEROES), draw), _pick(THINGS, draw)
        has = int(draw.random() * 10)
        told, way = [f"The {hero} has {has} {thing}s."], []
        for _ in range(steps):
            after = (has + 1 + int(draw.random() * 9)) % 10  # any other number: the answer stays evenly spread
            change = abs(after - has)
            told.append(f"{HEROES[hero]} {'finds' if after > has else 'loses'} {change}.")
            way.append(f"{has} {'+' if after > has else '-'} {change} = {after}.")
            has = after
        return Task(f"{' '.join(told)} How many?", str(has), " ".join(way))


def _pick(words: Sequence[str], draw: random.Random) -> str:
    return words[int(draw.random() * len(words))]
