"""Control tokens: written by a chat template, never by the text of a message."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from langchain_eft.chat.surrogates import refuse_surrogates
from langchain_eft.chat.tool_formats import chat_template

_BEGIN, _END = ("".join(chr(0x10600 + secrets.randbelow(256)) for _ in range(8)) for _ in range(2))
"""The marks: random letters of Linear A. Nobody can guess them, and filters of templates leave them alone."""

_TAG = re.compile(r"[^\w\s].*\w.*[^\w\s]", re.DOTALL)


class ControlTokens:
    """The control tokens of a tokenizer, told apart by who wrote them: a chat template, or a text.

    These are its special tokens, and those of its other added tokens that are tags in the chat template, such
    as `<tool_call>`. `mark` is for every text before a template joins it with tokens of its own. `encode`
    reads what the template has made: marked tokens become the ordinary tokens of their characters. Without a
    marked token the ids are those of the tokenizer.

    Args:
        tokenizer: A transformers tokenizer.
        sanitize: Whether text is kept from becoming control tokens; otherwise `mark` marks nothing.
    """

    def __init__(self, tokenizer: Any, *, sanitize: bool = True) -> None:
        self._tokenizer = tokenizer
        special, tags = _contents(tokenizer) if sanitize else ((), ())
        self._special, _ = _patterns(special)
        self._pattern, self._marks = _patterns((*special, *tags))
        self._normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)

    def mark(self, value: Any, *, tags: bool = True) -> Any:
        """A string, or the strings in lists and dictionaries, with marks around their control tokens.

        Args:
            value: What a template reads.
            tags: Whether tags are marked too. In messages of the model they are its own words.
        """
        if isinstance(value, str):
            pattern = self._pattern if tags else self._special
            return pattern.sub(rf"{_BEGIN}\g<0>{_END}", self._as_matched(value))
        if isinstance(value, Mapping):
            return {self.mark(key, tags=tags): self.mark(item, tags=tags) for key, item in value.items()}
        return [self.mark(item, tags=tags) for item in value] if isinstance(value, list | tuple) else value

    def encode(self, text: str, *, add_special_tokens: bool = False) -> tuple[int, ...]:
        """The ids of a rendered text.

        Args:
            text: What a template has made of marked strings.
            add_special_tokens: Whether the tokenizer adds its tokens for the beginning and end of a text.
        """
        first, *pieces = self._marks.split(text)
        if not pieces:
            return tuple(self._tokenizer(text, add_special_tokens=add_special_tokens).input_ids)
        ids, after = self._frame() if add_special_tokens else ([], [])
        ids = [*ids, *self._ids(first)]
        for token, rest in zip(pieces[1::3], pieces[2::3], strict=True):
            ids += [*(self._spelled(token) if token else []), *(self._continued(rest) if rest else [])]
        return (*ids, *after)

    def text_ids(self, text: str) -> tuple[int, ...]:
        """The ids of a text that no template changes.

        Raises:
            RequestError: It holds half a character.
        """
        refuse_surrogates(text)
        return self.encode(self.mark(text))

    def _as_matched(self, text: str) -> str:
        """The text as the tokenizer normalizes it, if it has more control tokens in that form."""
        encodable = text.encode(errors="replace").decode()  # without lone surrogates, which are refused later
        form = self._normalizer.normalize_str(encodable) if self._normalizer else text
        return form if len(self._pattern.findall(form)) > len(self._pattern.findall(text)) else text

    def _spelled(self, token: str) -> list[int]:
        """The ids of a control token's text. Cut after its first character it is not found as one token."""
        rest = token[1:]
        read = self._spelled if self._pattern.search(rest) else self._continued
        return self._continued(token[0]) + (read(rest) if rest else [])

    def _continued(self, text: str) -> list[int]:
        """The ids of a text after another one. At the beginning some tokenizers add a space."""
        newline, ids = self._ids("\n"), self._ids(f"\n{text}")
        return ids[len(newline) :] if ids[: len(newline)] == newline else self._ids(text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def _frame(self) -> tuple[list[int], list[int]]:
        """What the tokenizer adds before and after a text."""
        bare, framed = self._ids("a"), self._tokenizer("a").input_ids
        start = next(i for i in range(len(framed)) if framed[i : i + len(bare)] == bare)
        return framed[:start], framed[start + len(bare) :]


def _contents(tokenizer: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The special tokens, and the other tags of the template."""
    template = chat_template(tokenizer)
    added = [token for token in tokenizer.added_tokens_decoder.values() if len(token.content) > 1]
    special = tuple(token.content for token in added if token.special)
    others = (token.content for token in added if not token.special)
    return special, tuple(other for other in others if _TAG.fullmatch(other) and other in template)


@lru_cache(maxsize=32)
def _patterns(tokens: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What finds one of the tokens, and what splits a text at marks and marked tokens."""
    longest_first = sorted(tokens, key=len, reverse=True)
    token = "|".join(map(re.escape, longest_first)) or "(?!)"
    # A template may have cut off one of the two marks.
    marked = f"({_BEGIN})?({token})(?(1)(?:{_END})?|{_END})"
    return re.compile(token), re.compile(f"{marked}|{_BEGIN}|{_END}")
