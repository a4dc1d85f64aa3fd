"""`{slide}`: the lead of a stop of the tour. On its page it is the first paragraph, in the deck it is the slide.

    ## Stop 6 · Tokens

    ```{slide}
    A model reads numbers. A {term}`tokenizer` decides which pieces of text get one.
    ```

What the cells tagged `slide` show goes onto the slide too (`deck.py`). To readers of the page it is no box.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class SlideText(SphinxDirective):
    """`{slide}`; takes no argument."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        self.assert_has_content()
        lead = nodes.container("\n".join(self.content), classes=["slide-lead"])
        self.set_source_info(lead)
        self.state.nested_parse(self.content, self.content_offset, lead)
        return [lead]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("slide", SlideText)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
