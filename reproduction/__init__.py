"""The findings of Mitchell et al. 2023, looked for in the bundled smol family: `python -m reproduction`.

Every experiment is a table and a figure beside the paper's numbers; `docs/reproduction.md` is
written from them.
"""
