"""Where things are: the folders, the settings in `_config.yml` and the pages in `_toc.yml`.

Everything that names the repository, its branch or the published site asks here, so a fork changes
`_config.yml` and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from edition_text import edit

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Course:
    """One checkout of the course; `root` is the folder that holds `_config.yml`."""

    root: Path = ROOT

    @property
    def book(self) -> Path:
        return self.root / "book"

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def site_folder(self) -> Path:
        return self.site_of("learner")

    @property
    def build_folder(self) -> Path:
        return self.root / "_build"

    def site_of(self, edition: str) -> Path:
        """Where `make book EDITION=...` leaves the site."""
        return self.build_folder / ("html" if edition == "learner" else f"html-{edition}")

    @cached_property
    def config(self) -> dict[str, Any]:
        settings: dict[str, Any] = yaml.safe_load((self.root / "_config.yml").read_text("utf-8"))
        return settings

    @property
    def edition(self) -> str:
        """`learner`, unless this is a copy that `editions.py` made."""
        return str(self.config["sphinx"]["config"].get("course_edition", "learner"))

    @property
    def cache_folder(self) -> Path:
        return self.root / str(self.config["execute"]["cache"])

    @property
    def cell_timeout(self) -> int:
        """Seconds one cell may run."""
        return int(self.config["execute"]["timeout"])

    @property
    def repository_url(self) -> str:
        return str(self.config["repository"]["url"]).rstrip("/")

    @property
    def repository(self) -> str:
        """`owner/name` on GitHub."""
        return self.repository_url.removeprefix("https://github.com/")

    @property
    def branch(self) -> str:
        return str(self.config["repository"]["branch"])

    @property
    def site_url(self) -> str:
        return str(self.config["html"]["baseurl"]).rstrip("/")

    def page_url(self, docname: str, anchor: str = "") -> str:
        """Address of a page on the published site; `docname` is like `book/week1/day01_tokenization`."""
        return f"{self.site_url}/{docname}.html" + (f"#{anchor}" if anchor else "")

    def raw_url(self, path: str) -> str:
        """Address of a file of the repository as it is (for images in notebooks)."""
        return f"https://raw.githubusercontent.com/{self.repository}/{self.branch}/{path}"

    def source_url(self, docname: str) -> str:
        return f"{self.repository_url}/blob/{self.branch}/{docname}.md"

    def colab_url(self, docname: str) -> str:
        notebook = self.notebook_path(docname).relative_to(self.root).as_posix()
        return f"https://colab.research.google.com/github/{self.repository}/blob/{self.branch}/{notebook}"

    def notebook_path(self, docname: str) -> Path:
        """`book/week1/day01_x` -> `notebooks/week1/day01_x.ipynb`."""
        return self.notebooks / (docname.removeprefix("book/") + ".ipynb")

    def docname(self, path: Path) -> str:
        return path.relative_to(self.root).with_suffix("").as_posix()

    def fill_in(self, text: str) -> str:
        """Replace `{{ repository_url }}` and the like, which pages write instead of the real addresses."""
        values = {
            "repository_url": self.repository_url,
            "repository_name": self.repository.rpartition("/")[2],
            "branch": self.branch,
            "site_url": self.site_url,
        }
        return re.sub(r"\{\{ (\w+) \}\}", lambda m: values.get(m[1], m[0]), text)

    def text(self, page: Path) -> str:
        """What a page says in this edition, with the addresses filled in."""
        return self.fill_in(edit(page.read_text("utf-8"), self.edition))

    @property
    def page_seconds(self) -> dict[str, float]:
        """Seconds that each page took when it was last run, by docname."""
        times = self.build_folder / "page_seconds.json"
        return json.loads(times.read_text()) if times.exists() else {}

    @cached_property
    def toc(self) -> list[str]:
        """Every page of `_toc.yml`, in reading order."""

        def walk(node: Any) -> Iterator[str]:
            if isinstance(node, list):
                for item in node:
                    yield from walk(item)
            elif isinstance(node, dict):
                for key in ("root", "file"):
                    if key in node:
                        yield str(node[key])
                for key in ("parts", "chapters", "sections"):
                    yield from walk(node.get(key, []))

        return list(walk(yaml.safe_load((self.root / "_toc.yml").read_text("utf-8"))))

    @property
    def pages(self) -> list[Path]:
        """The Markdown files of `_toc.yml`."""
        return [self.root / f"{docname}.md" for docname in self.toc]

    @property
    def lessons(self) -> list[Path]:
        """The pages that run code: those with a jupytext header."""
        return [page for page in self.pages if page.exists() and is_executable(page)]


def is_executable(page: Path) -> bool:
    """Whether a Markdown page has the header that makes it a notebook."""
    head = page.read_text("utf-8")[:1000]
    return head.startswith("---") and "format_name: myst" in head.split("\n---", 1)[0]
