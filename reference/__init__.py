"""What the documents say that the code knows: tables made from models, settings, metrics and log keys.

`make docs` writes them: `docs/api-reference.md` as a whole, in the others what stands between two marks. A test holds
the committed files equal. No table has a word of its own about a field: what it says is the docstring that stands
beside the field in the code. Only the order, the headings and the few things that no single place in the code says are
written here.
"""
