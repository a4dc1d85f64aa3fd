"""Helpers of “An LLM from scratch: 42 executable days”.

Read the files in this order; each is one idea: `tokenizer`, `data`, `ngram`, `model`, `trainer`,
`checkpoint`, `sampler`, `plots`, `runs`, `device`, `cli`. Importing the package imports nothing heavy.
"""

__version__ = "0.1.0"
