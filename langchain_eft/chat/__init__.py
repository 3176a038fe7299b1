"""One conversation as token ids, and token ids as one answer."""
