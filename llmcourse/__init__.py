"""Helpers of “An LLM from scratch: 42 executable days”.

Read the files in this order; each is one idea. The model's way: `tokenizer`, `data`, `universe` (a text whose entropy
is known), `ngram`, `model`, `trainer` (with `muon`), `evaluation`, `checkpoint`, `sampler`, `quality` (of its text).
What is shown: `plots` (on `figure`), `runs` and `sweeps` (of `recipes`), `widgets` and `quiz` (on `frame`). Around it:
`device`, `checks`, `progress`, `cli`, and the two small ones that all others lean on, `errors` and `files`. Importing
the package imports nothing heavy.
"""

__version__ = "0.1.0"
