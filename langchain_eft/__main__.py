"""`python -m langchain_eft` is the command line."""

from langchain_eft.cli import app

app()
