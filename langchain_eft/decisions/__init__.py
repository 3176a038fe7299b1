"""Decisions: probabilities of given answers to typed questions about a text."""
