"""Everyday words of tools, which only the training has."""

from __future__ import annotations

from training.smol.tasks.vocabulary import ADJECTIVES, NAMES, NOUNS, THINGS

VERBS = (
    "get", "find", "compute", "lookup", "fetch", "search", "convert", "estimate", "count", "list", "check",
    "calculate", "apply", "run", "measure", "translate", "classify", "rank", "score", "summarize",
    "validate", "parse", "schedule", "book", "send", "create", "update", "delete", "add", "subtract",
    "multiply", "divide", "combine", "compare", "predict", "track", "plan", "open", "close", "start",
    "stop", "read", "write", "solve", "evaluate", "transform", "query", "resolve", "encode", "decode",
    "sort", "filter", "order", "buy", "sell", "pay", "move", "copy", "rename", "share", "upload",
    "download", "print", "scan", "merge", "split", "join", "leave", "invite", "call", "message", "remind",
    "set", "reset", "change", "show", "hide", "lock", "unlock", "play", "pause", "record", "draw", "paint",
    "cut", "mix", "cook", "clean", "wash", "fill", "empty", "load", "unload", "build", "test", "deploy",
    "install", "remove", "enable", "disable", "turn", "generate", "describe", "explain", "extract",
    "detect", "label", "crop", "resize", "rotate", "export", "import", "backup", "restore", "sync",
    "connect", "ping", "block", "report", "notice", "rate", "review", "vote", "like", "follow", "tag",
    "note", "save", "load", "pick", "drop", "raise", "lower", "count_up", "toggle", "make", "take", "bring",
    "hire", "train", "match", "swap", "trade", "quote", "charge", "refund", "borrow", "return", "lend",
    "visit",
)  # fmt: skip
"""Verbs of tools, beside the words of the vocabulary."""

ARGUMENT_NAMES = (
    "input", "x", "y", "a", "b", "n", "count", "value", "number", "amount", "limit", "days", "year", "age",
    "id", "size", "level", "price", "weight", "ratio", "temperature", "radius", "city", "location", "place",
    "destination", "origin", "name", "person", "user", "customer", "author", "word", "query", "topic",
    "term", "keyword", "item", "text", "category", "date", "day", "start_date", "end_date", "email",
    "recipient", "to", "address", "title", "message", "sentence", "phrase", "question", "verbose", "exact",
    "metric", "urgent", "recursive", "items", "words", "tags", "names", "numbers", "values", "ids", "unit",
    "lat", "lon", "width", "height", "color", "language", "source", "target", "path", "file", "url", "key",
    "mode", "type", "status", "format", "page", "offset", "total", "min", "max", "q", "first_name",
    "last_name", "phone", "country", "currency", "duration", "start", "end", "quantity", "code", "label_id",
    "user_id", "body", "content",
)  # fmt: skip
"""Names that arguments often have; any kind of value may have any of them."""

EVERYDAY = frozenset(
    word.lower()
    for text in (*VERBS, *NOUNS, *ADJECTIVES, *ARGUMENT_NAMES, *NAMES, *THINGS)
    for word in text.split("_")
)
"""All of them, which the words of the other parts leave out."""
