"""Estimates of `langchain-eft plan` beside what others have measured. They compute, and run nothing."""
