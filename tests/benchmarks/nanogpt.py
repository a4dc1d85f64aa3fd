"""nanoGPT as a peer: its model.py, from a checkout, as a module."""

import importlib.util
from pathlib import Path
from typing import Any


def load_module(folder: Path) -> Any:
    """`model.py` of the checkout in `folder`; FileNotFoundError if there is none."""
    path = folder / "model.py"
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise FileNotFoundError(f"There is no model.py in {folder}: give a checkout of nanoGPT.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
