"""One prompt of a request, followed by the answer, as positions in KV memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile

from langchain_eft.engine.models.batch import is_final
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.scheduling.block_keys import BlockKeys, unadapted_readers
from langchain_eft.engine.scheduling.block_manager import BlockManager
from langchain_eft.engine.scheduling.state_slots import StateSlots


class PromptState:
    """One prompt of a request and the answer behind it, with positions and blocks of KV memory of its own.

    A request has several prompts where its terms read different texts. The same answer follows each of them.
    Prefill, decoding and recomputation after preemption are one process: `num_computed_tokens` catches up
    with the tokens.

    Attributes:
        num_prompt_tokens: Length of the prompt.
        tokens: Prompt and answer so far.
        block_table: Blocks that hold the computed tokens.
        num_computed_tokens: Tokens whose keys and values are in memory.
        num_cached_blocks: Full blocks that the prefix cache offers to later requests.
        state_slot: Slot of its recurrent states, if the models have such; else None.
        num_final_tokens: Tokens that these states contain for good.
        first_to_run: Position of the first token of the pass that runs now.

    Args:
        prompt: Token ids before the answer, at least one.
        terms: The terms that read this prompt.
    """

    def __init__(self, prompt: Sequence[int], terms: Iterable[Term]) -> None:
        self.tokens = list(prompt)
        self.block_table: list[int] = []
        self.num_computed_tokens = 0
        self.num_cached_blocks = 0
        self.num_prompt_tokens = len(prompt)
        self.state_slot: int | None = None
        self.num_final_tokens = self.first_to_run = 0
        readers = tuple(terms)
        self._keys, unadapted = BlockKeys(readers), unadapted_readers(readers)
        self._unadapted_keys = None if unadapted is None else BlockKeys(unadapted)

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens that are not in KV memory yet; at least one until the request is finished."""
        return len(self.tokens) - self.num_computed_tokens

    def begin(self, count: int) -> None:
        """Note that the next `count` tokens run now.

        A recurrent state that already contains them, by a pass that failed later, begins anew.
        """
        end = self.num_computed_tokens + count
        begins_anew = self.num_final_tokens > self.num_computed_tokens
        self.first_to_run = 0 if begins_anew else self.num_computed_tokens
        self.num_final_tokens = end if is_final(end - self.first_to_run) else self.first_to_run

    def index_before(self, position: int) -> int:
        """Index of the token before token number `position` of the answer: its logits predict that token."""
        return self.num_prompt_tokens + position - 1

    def block_keys(self, num_tokens: int, block_size: int) -> list[bytes]:
        """Keys of the full blocks among the first `num_tokens` tokens."""
        return self._keys.first(num_tokens // block_size, self.tokens, block_size)

    def take_cached_blocks(
        self, num_tokens: int, blocks: BlockManager, slots: StateSlots | None = None
    ) -> None:
        """Begin with what the prefix cache holds of the first `num_tokens` tokens.

        Args:
            num_tokens: Most tokens to reuse.
            blocks: The KV memory.
            slots: That of recurrent states, which have to be there too.
        """
        keys = self.block_keys(num_tokens, blocks.block_size)
        if slots:
            keys = list(takewhile(blocks.contains, keys))
            keys = keys[: slots.reusable(keys)]
            self.state_slot = slots.take(keys[-1] if keys else None)
        self.block_table = blocks.get_cached_blocks(keys)
        self.num_cached_blocks = len(self.block_table)
        self.num_computed_tokens = self.num_final_tokens = self.num_cached_blocks * blocks.block_size

    def cache_full_blocks(self, blocks: BlockManager, slots: StateSlots | None = None) -> None:
        """Offer the full blocks of computed tokens to later requests, and the recurrent state behind them."""
        keys = self.block_keys(self.num_computed_tokens, blocks.block_size)
        names = [keys]
        if self._unadapted_keys is not None:
            names.append(self._unadapted_keys.first(len(keys), self.tokens, blocks.block_size))
        for i in range(self.num_cached_blocks, len(keys)):
            for names_of_blocks in names:
                blocks.cache_block(self.block_table[i], names_of_blocks[i])
        self.num_cached_blocks = len(keys)
        ends = {self.num_computed_tokens, self.num_final_tokens}
        if slots and self.state_slot is not None and keys and ends == {len(keys) * blocks.block_size}:
            slots.keep(keys[-1], self.state_slot)
