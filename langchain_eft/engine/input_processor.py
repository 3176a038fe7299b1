"""From a caller's request to the engine's own state of it: checked, and its mixture written as a formula."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain

from langchain_eft.engine.capacity import Capacity
from langchain_eft.engine.decoding.formula import Formula, build_formula
from langchain_eft.engine.decoding.grammar import Grammars
from langchain_eft.engine.error_text import quoted_names, shown
from langchain_eft.engine.errors import ContextWindowError, RequestError
from langchain_eft.engine.events import Event
from langchain_eft.engine.models.activation import activated
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.exponents import refuse_negative_exponents
from langchain_eft.engine.request import Generation, GenerationRequest
from langchain_eft.engine.scheduling.draft_length import AcceptanceRates
from langchain_eft.engine.scheduling.request_state import RequestState

logger = logging.getLogger(__name__)


class InputProcessor:
    """Checks requests against a recipe and its models.

    Attributes:
        family: The loaded models.
        capacity: How many tokens prompts and answers may have.

    Args:
        recipe: Which behaviors there are.
        family: The loaded models.
        capacity: As above.
        initial_rates: Acceptance rates that a request starts with.
    """

    def __init__(
        self,
        recipe: Recipe,
        family: ModelFamily,
        capacity: Capacity,
        initial_rates: Callable[[GenerationRequest], AcceptanceRates],
    ) -> None:
        self.family = family
        self.capacity = capacity
        self._recipe = recipe
        self._initial_rates = initial_rates
        self._silent: set[str] = set()  # behaviors whose prompt once lacked an invocation

    @cached_property
    def _grammars(self) -> Grammars:
        return Grammars(self.family.tokenizer, len(self.family.vocabulary), self.family.end_ids)

    def process(self, request: GenerationRequest, deliver: Callable[[Event], None]) -> RequestState:
        """Check a request, build its formula and compile its grammar: everything that takes time.

        Raises:
            ContextWindowError: Prompt and answer do not fit.
            RecipeError: A mixture that the recipe cannot decode.
            RequestError: Token ids outside the vocabulary, a grammar that does not compile, or a beginning
                that the answer cannot have.
        """
        self._recipe.check(request.mixture)
        formula = replace(self.formula(request), traced=request.trace)
        texts = {**request.contexts, "": request.prompt_ids}
        read = {term.prompt_name: len(texts[term.prompt_name]) for term in formula.terms}
        self.capacity.check([*read.values()], len(request.answer_prefix), request.max_tokens)
        biased = tuple(request.sampling.logit_bias)
        fields = {"prompt_ids": request.prompt_ids, **request.contexts, "logit_bias": biased}
        for field, ids in fields.items():
            self.check_token_ids(ids, field)
        self._check_answer_ids(request.answer_prefix, "answer_prefix")
        return RequestState(
            Generation(request, deliver),
            formula,
            self.family.tokenizer,
            self.family.end_ids,
            self._initial_rates(request),
            None if request.grammar is None else self._grammars.compile(request.grammar),
        )

    def formula(self, request: GenerationRequest) -> Formula[Term]:
        """The mixture as terms; terms that read equal prompts read one prompt.

        Raises:
            RecipeError: A mixture that cannot be decoded, or that divides by the base or by a tuned model
                without `allow_negative_weights`.
            RequestError: A behavior whose prompt is missing.
        """
        first: dict[tuple[int, ...], str] = {}
        prompts = {"": request.prompt_ids, **request.contexts}
        names = {name: first.setdefault(ids, name) for name, ids in prompts.items()}
        weights, behaviors = request.mixture.active(), self.family.behaviors
        self.require_prompts(chain([self.family.base], *(behaviors[name] for name in weights)), names)
        behaviors = behaviors | {name: self.activated(name, prompts) for name in weights}

        def renamed(term: Term) -> Term:
            return replace(term, prompt_name=names.get(term.prompt_name, term.prompt_name))

        base = renamed(self.family.base)
        formula = build_formula(
            base,
            {name: (renamed(tuned), renamed(reference)) for name, (tuned, reference) in behaviors.items()},
            weights,
            request.upscale_strength,
            request.upscale_top_p,
            lambda term: self.family.bytes_read([term]),
            lambda term: replace(term, prompt_name=base.prompt_name),
            unscaled=self.family.unscaled is not None,
        )
        if not self._recipe.allow_negative_weights:
            self._refuse_negative_exponents(formula, weights)
        return formula

    def activated(self, behavior: str, prompts: Mapping[str, tuple[int, ...]]) -> tuple[Term, Term]:
        """The terms F and S of a behavior as they read prompts; see `activation.activated`.

        Args:
            behavior: Name of the behavior.
            prompts: Token ids by the names of prompts, those of the terms among them.
        """
        tuned, reference = self.family.behaviors[behavior]
        reads = activated(tuned, self.family, prompts[tuned.prompt_name])
        if reads.variant != tuned.variant and behavior not in self._silent:
            self._silent.add(behavior)
            invocation = self.family.models[tuned.model].invocations[tuned.variant]
            logger.warning(
                "The behavior %r changes nothing where its prompt lacks the text that invokes its adapter, "
                "%r: end the prompt with it, by the last message or by a chat template.",
                behavior,
                self.family.tokenizer.decode(invocation),
            )
        return reads, reference

    def _refuse_negative_exponents(self, formula: Formula[Term], behaviors: Container[str]) -> None:
        family = self.family
        refuse_negative_exponents(
            ([(term.weights, weight) for term, weight in terms] for terms in formula.distributions()),
            (family.base.weights, str(self._recipe.base)),
            {
                name: (tuned.weights, reference.weights)
                for name, (tuned, reference) in family.behaviors.items()
                if name in behaviors
            },
            {Term(i, variant) for i, each in enumerate(family.models) for variant in each.negated},
        )

    def require_prompts(self, terms: Iterable[Term], names: Container[str]) -> None:
        """Refuse a request that lacks a prompt of some term.

        Raises:
            RequestError: With the names that are missing.
        """
        missing = {term.prompt_name for term in terms if term.prompt_name not in names}
        if missing:
            raise RequestError(
                f"`contexts` lacks {quoted_names(missing)}: add the second prompt of every behavior with "
                "two, and the base's prompt where it has a template of its own."
            )

    def check_token_ids(self, ids: Iterable[int], field: str) -> None:
        """Refuse ids that no token has.

        Args:
            ids: Token ids.
            field: Where they come from, for the message.

        Raises:
            RequestError: With the first such id.
        """
        size = len(self.family.vocabulary)
        outside = [i for i in ids if not 0 <= i < size]
        if outside:
            raise RequestError(
                f"Token id {shown(outside[0])} in `{field}` is outside the vocabulary of {size} tokens: use "
                "ids of `tokenizer`."
            )

    def check_scorable(self, prompts: Collection[Sequence[int]], answers: Collection[Sequence[int]]) -> None:
        """Refuse answers that have no log-probability after some prompt.

        Args:
            prompts: What terms read before every answer.
            answers: The answers.

        Raises:
            RequestError: No tokens, ids outside the vocabulary, or tokens that some model lacks.
            ContextWindowError: Prompt and answer do not fit.
        """
        if not answers or not all(prompts) or not all(answers):
            raise RequestError("An answer, or its prompt, has no tokens: give some text to score.")
        longest = max(map(len, answers))
        for prompt in prompts:
            if len(prompt) + longest > self.capacity.window:
                raise ContextWindowError.of(len(prompt), longest, self.capacity.window)
            self.check_token_ids(prompt, "prompt")
        for answer in answers:
            self._check_answer_ids(answer, "answer")

    def _check_answer_ids(self, ids: Sequence[int], field: str) -> None:
        """Refuse ids that no answer can have.

        Raises:
            RequestError: With the first such id.
        """
        self.check_token_ids(ids, field)
        not_shared = [token for token in ids if not self.family.vocabulary[token]]
        if not_shared:
            raise RequestError(
                f"Token id {not_shared[0]} in `{field}` does not mean the same in all models, so an answer "
                "with it has no log-probability: leave it out."
            )
