"""Sphinx glue: libraries that ask which plugins are installed at every citation and every page are told once.

The answer means reading the metadata of all installed packages, and cannot change during a build; asking again and
again was a fifth of its time.
"""

from __future__ import annotations

from functools import cache

import myst_nb.core.render
import pybtex.plugin
from sphinx.application import Sphinx


def setup(_app: Sphinx) -> dict[str, bool]:
    for module in (myst_nb.core.render, pybtex.plugin):
        module.entry_points = cache(module.entry_points)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
