"""Traces: which words of an answer each model of the mixture changed."""
