"""MyST to the plain Markdown that Colab and JupyterLab show without any extension.

A box becomes a quotation with a bold title, a solution folds open (`<details>`), a cross-reference becomes
a link to the published page. What cannot be said in plain Markdown is refused with a `ConversionError`
that knows its line; nothing is ever dropped in silence.

`markdown-it` finds where the blocks are (directives nest); the text inside them is edited line by line,
so that everything it does not have to touch stays as the author wrote it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

import yaml
from boxes import BOXES
from labels import Label, Labels
from markdown_it import MarkdownIt
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.myst_blocks import myst_block_plugin
from teaching import TEACHING

PARSER = (
    MarkdownIt("commonmark")
    .enable("table")
    .disable("reference")  # so that "[^1]: a footnote" is text like any other
    .use(colon_fence_plugin)
    .use(dollarmath_plugin, allow_labels=True)
    .use(amsmath_plugin)
    .use(myst_block_plugin)
)
DIRECTIVE = re.compile(r"^\{([\w:.+-]+)\}\s*(.*)$")
# What may stand inside a line, tried in this order: an escaped character, a role or a code span, a formula,
# a footnote, an image or a link, attributes in braces after one of these.
INLINE = re.compile(
    r"(?P<escape>\\.)"
    r"|(?:\{(?P<role>[\w:.+-]+)\})?(?P<ticks>`+)(?P<code>.+?)(?<!`)(?P=ticks)(?!`)"
    r"|(?P<math>\$\$.+?\$\$|\$(?!\s)[^$]+?(?<!\s)\$(?!\d))"
    r"|\[\^(?P<note>[\w-]+)\]:?"
    r"|(?P<bang>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\(\s*<?(?P<url>[^)\s>]*)>?(?P<title>\s+\"[^\"]*\")?\s*\)"
    r"|(?<=[\])`])\{(?P<attributes>[.#\w][^{}\n]*)\}",
    re.S,
)
BLOCK_ATTRIBUTES = re.compile(r"^\s*\{[.#][^}]*\}\s*$")
# Directives that make sense only on the site, or only mark where something begins or ends.
SITE_ONLY = {"bibliography", "toctree", "tableofcontents", "contents", "nb-exec-table", "exercise-end", "solution-end"}
QUOTED = {"margin", "sidebar", "topic", "epigraph", "pull-quote"}
UNWRAPPED = {"tab-set", "grid", "card-carousel", "div", "container", "slide"}
TITLED = {"tab-item", "card", "grid-item-card", "grid-item", "table"}
LISTINGS = {"code-block", "code", "sourcecode"}
OTHER_BOXES = {"admonition", "attention", "caution", "danger", "error", "hint", "important", "note", "seealso"}
OTHER_BOXES |= {"tip", "warning"}


class ConversionError(Exception):
    """Something that plain Markdown cannot say; `line` counts from 0 in the page's file."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def split_options(content: str) -> tuple[dict[str, str], str, int]:
    """A directive's options, its body, and the number of lines before the body."""
    lines, options = content.splitlines(), {}
    used = 0
    if lines and lines[0].strip() == "---":
        end = lines.index("---", 1)
        options = {str(k): str(v) for k, v in (yaml.safe_load("\n".join(lines[1:end])) or {}).items()}
        used = end + 1
    else:
        while used < len(lines) and (match := re.match(r"^:([\w-]+):\s*(.*)$", lines[used])):
            options[match[1]] = match[2].strip()
            used += 1
    while used < len(lines) and not lines[used].strip():
        used += 1
    return options, "\n".join(lines[used:]).rstrip(), used


def quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def details(title: str, body: str) -> str:
    return f"<details>\n<summary><b>{title}</b></summary>\n\n{body}\n\n</details>"


class PlainMarkdown:
    """Converts the Markdown cells of one page."""

    def __init__(self, docname: str, labels: Labels) -> None:
        self.docname, self.labels, self.course = docname, labels, labels.course
        self.line = 0  # the line of the page that is being read, for error messages

    # ---- blocks ----------------------------------------------------------------------------------
    def convert(self, source: str, first_line: int = 0) -> str:
        """`source` as plain Markdown; it begins on line `first_line` (from 0) of the page."""
        lines = source.split("\n")
        edits: list[tuple[int, int, list[str]]] = []
        in_table = False
        for token in PARSER.parse(source):
            in_table = token.type == "table_open" or (in_table and token.type != "table_close")
            if not token.map or (in_table and token.type != "table_open"):
                continue
            start, end = token.map
            self.line = first_line + start
            if (new := self.block(token.type, token.info, token.content, lines[start:end])) is not None:
                edits.append((start, end, new))
        for start, end, new in sorted(edits, reverse=True):
            lines[start:end] = new
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")

    def block(self, kind: str, info: str, content: str, raw: list[str]) -> list[str] | None:
        """The lines that stand for one block, or None if it stays as it is."""
        if kind in ("fence", "colon_fence"):
            if not (match := DIRECTIVE.match(info.strip())):
                return None
            margin = re.match(r"[\s>]*", raw[0])
            pad = margin[0] if margin else ""
            text = self.directive(match[1], match[2], content)
            return ["", *((pad + line).rstrip() for line in text.split("\n")), ""]
        if kind == "myst_target" or kind == "myst_line_comment":
            return []
        if kind == "math_block_label":
            return ["$$", *content.strip("\n").split("\n"), self.equation_tag(info), "$$"]
        if kind in ("inline", "table_open"):
            kept = [line for line in raw if not BLOCK_ATTRIBUTES.match(line)]
            return self.inline("\n".join(kept)).split("\n")
        return None

    def nested(self, body: str, skipped: int) -> str:
        """The body of a directive; it begins `skipped` lines below the directive's own first line."""
        line = self.line
        text = self.convert(body, line + 1 + skipped)
        self.line = line
        return text

    def directive(self, name: str, argument: str, content: str) -> str:
        options, body, skipped = split_options(content)
        folded = "dropdown" in options.get("class", "").split()
        if name not in ("figure", "image", "math", "raw", "solution", "solution-start", *LISTINGS):
            argument = self.inline(argument)
        if name in SITE_ONLY:
            return ""
        if name in LISTINGS:
            return f"```{argument}\n{body}\n```"
        if name == "raw":
            return body
        if name == "math":
            tag = "\n" + self.equation_tag(options["label"]) if "label" in options else ""
            return f"$$\n{body}{tag}\n$$"
        if name == "glossary":
            return self.glossary(body, skipped)
        if name in ("figure", "image"):
            caption = self.nested(body, skipped)
            picture = f"![{options.get('alt', '')}]({self.image_url(argument)})"
            return f"{picture}\n\n*{caption}*" if caption else picture

        inner = self.nested(body, skipped)
        if name in BOXES:
            title = BOXES[name] + (f": {argument}" if argument else "")
            return details(title, inner) if folded else quote(f"**{title}**\n\n{inner}")
        if name == "dropdown":
            return details(argument or "More", inner)
        if name in ("exercise", "exercise-start"):
            head = f"**Exercise{': ' + argument if argument else ''}**"
            return quote(f"{head}\n\n{inner}") if inner else head
        if name in ("solution", "solution-start"):
            title = f"Solution: {self.exercise_title(argument)}"
            if name == "solution-start":
                return f"**{title}**"
            return f"**{title}**\n\n{inner}" if self.course.edition == "instructor" else details(title, inner)
        if name == "teaching":  # it is here in the instructor edition only
            return quote(f"**{TEACHING}{': ' + argument if argument else ''}**\n\n{inner}")
        if name.startswith("prf:"):
            title = name.removeprefix("prf:").capitalize() + (f" ({argument})" if argument else "")
            return quote(f"**{title}.** {inner}")
        if name in QUOTED:
            return quote(f"**{argument}**\n\n{inner}" if argument else inner)
        if name in UNWRAPPED:
            return inner
        if name in TITLED:
            return f"**{argument}**\n\n{inner}" if argument else inner
        if name in OTHER_BOXES:
            raise ConversionError(f"directive {{{name}}}: this book has four boxes, {', '.join(BOXES)}", self.line)
        raise ConversionError(f"unknown directive {{{name}}}", self.line)

    def glossary(self, body: str, skipped: int) -> str:
        entries: list[tuple[list[str], list[str]]] = []
        for line in body.splitlines():
            if line and not line[0].isspace():
                if not entries or entries[-1][1]:
                    entries.append(([], []))
                entries[-1][0].append(line)
            elif entries:
                entries[-1][1].append(line.strip())
        return "\n\n".join(
            f"**{', '.join(terms)}**: {self.nested(' '.join(text).strip(), skipped)}" for terms, text in entries
        )

    def exercise_title(self, label: str) -> str:
        return self.label(label).text.removeprefix("Exercise: ")

    def equation_tag(self, label: str) -> str:
        return f"\\tag{{{self.label(label, self.labels.equations).text}}}"

    def label(self, name: str, among: dict[str, Label] | None = None) -> Label:
        among = self.labels.labels if among is None else among
        if name not in among:
            raise ConversionError(f"unknown label {name!r}", self.line)
        return among[name]

    # ---- inside a line ---------------------------------------------------------------------------
    def inline(self, text: str) -> str:
        """`text` with roles, links and footnotes made plain; code and formulas are left alone."""
        first = self.line

        def replace(match: re.Match[str]) -> str:
            self.line = first + text.count("\n", 0, match.start())
            if match["role"]:
                return self.role(match["role"], match["code"].strip())
            if match["note"]:
                return f"<sup>{match['note']}</sup>"
            if match["attributes"] is not None:
                return ""
            if match["url"] is None:
                return match[0]
            if match["bang"]:
                return f"![{match['text']}]({self.image_url(match['url'])}{match['title'] or ''})"
            url, title = self.link(match["url"])
            return f"[{self.inline(match['text']) or title}]({url}{match['title'] or ''})"

        result = INLINE.sub(replace, text)
        self.line = first
        return result

    def role(self, name: str, body: str) -> str:
        titled = re.match(r"^(.*?)\s*<([^<>]+)>$", body, re.S)
        text, target = (titled[1], titled[2]) if titled else ("", body)
        convert: Callable[[str, str], str] | None = {
            "ref": self.reference,
            "numref": self.reference,
            "prf:ref": self.reference,
            "eq": self.equation,
            "doc": self.page,
            "term": self.term,
        }.get(name)
        if convert:
            return convert(text, target)
        if name in ("cite", "cite:p", "cite:ps", "cite:t", "cite:ts"):
            return self.citation(body, in_text=name.startswith("cite:t"))
        if name == "math":
            return f"${body}$"
        if name in ("sub", "sup", "kbd"):
            return f"<{name}>{body}</{name}>"
        if name in ("code", "file", "command", "program", "samp"):
            return f"`{body}`"
        if name in ("abbr", "guilabel", "menuselection"):
            return body.replace("-->", "→")
        raise ConversionError(f"unknown role {{{name}}}", self.line)

    def reference(self, text: str, target: str) -> str:
        docname, default = self.label(target)
        return f"[{text or default}]({self.course.page_url(docname, sphinx_anchor(target))})"

    def equation(self, text: str, target: str) -> str:
        docname, number = self.label(target, self.labels.equations)
        if docname == self.docname:
            return f"({number})"
        return f"[({number}) of {self.labels.titles[docname]}]({self.course.page_url(docname)})"

    def page(self, text: str, target: str) -> str:
        url, title = self.link(target)
        return f"[{text or title}]({url})"

    def term(self, text: str, target: str) -> str:
        url = self.labels.terms.get(target.lower())
        if url is None:
            raise ConversionError(f"term {target!r} is not in the glossary", self.line)
        return f"[{text or target}]({url})"

    def citation(self, keys: str, in_text: bool) -> str:
        links = []
        for key in (k.strip() for k in keys.split(",")):
            if key not in self.labels.citations:
                raise ConversionError(f"reference {key!r} is not in book/references.bib", self.line)
            authors, year = self.labels.citations[key]
            shown = f"{authors} ({year})" if in_text else f"{authors}, {year}"
            links.append(f"[{shown}]({self.course.page_url('book/reference/bibliography', f'cite-{key}'.lower())})")
        return ", ".join(links) if in_text else f"({'; '.join(links)})"

    def link(self, target: str) -> tuple[str, str]:
        """The address a link leads to and the title of what it leads to."""
        if re.match(r"^(https?:|mailto:)", target):
            return target, target
        path, _, anchor = target.partition("#")
        if not path:
            docname, text = self.labels.labels.get(anchor, Label(self.docname, self.labels.titles[self.docname]))
            return self.course.page_url(docname, sphinx_anchor(anchor)), text
        folder = "" if path.startswith("/") else posixpath.dirname(self.docname)
        full = posixpath.normpath(posixpath.join(folder, path.lstrip("/")))
        docname = full.removesuffix(".md")
        if docname in self.labels.titles:
            return self.course.page_url(docname, anchor), self.labels.titles[docname]
        if (self.course.root / full).is_file():
            return f"{self.course.repository_url}/blob/{self.course.branch}/{full}", posixpath.basename(full)
        raise ConversionError(f"link to {target!r}: there is no such page or file", self.line)

    def image_url(self, target: str) -> str:
        if "://" in target or target.startswith("data:"):
            return target
        path = posixpath.normpath(posixpath.join(posixpath.dirname(self.docname), target))
        if not (self.course.root / path).is_file():
            raise ConversionError(f"image {target!r}: there is no such file", self.line)
        return self.course.raw_url(path)


def sphinx_anchor(label: str) -> str:
    """The id that Sphinx gives to a label."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
