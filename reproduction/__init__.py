"""Reproduce the findings of Mitchell et al. 2023 with the bundled smol family: `python -m reproduction`.

Every experiment makes a table and a figure, with the paper's numbers next to ours. Together they make
`docs/reproduction.md`.
"""
