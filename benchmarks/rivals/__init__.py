"""Ways to decode that users compare with ours: one file for each."""
