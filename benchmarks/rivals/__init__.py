"""Races with other ways to decode: a file for each way, and what all need."""
