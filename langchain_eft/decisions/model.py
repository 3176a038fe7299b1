"""EFTDecisionModel: LangChain's decision model over an emulated fine-tuned model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from pydantic import ValidationError
from typing_extensions import override

from langchain_eft.chat.content_blocks import PROVIDER
from langchain_eft.chat.parameters import refuse_unknown
from langchain_eft.decisions.decision import Decision, DecisionOptions, prepare_decision
from langchain_eft.engine.base_engine import BaseEngine
from langchain_eft.engine.error_text import describe
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.request import AnswerScores
from langchain_eft.engine_user import EngineUser
from langchain_eft.errors import langchain_errors

try:
    from langchain_core.decisions import (
        BaseDecisionModel,
        ClassifierRequest,
        ClassifierResponse,
        Question,
        State,
    )
except ModuleNotFoundError as error:
    raise ImportError(
        "EFTDecisionModel needs langchain-core 1.8 or newer, which has LangChain's decision models: "
        'pip install -U "langchain-core>=1.8"'
    ) from error

_CALL_PARAMETERS = (DecisionOptions.model_fields.keys() - {"sanitize_control_tokens"}) | {
    "model", "mixture", "upscale_strength", "upscale_top_p",
}  # fmt: skip
"""Names of what a call may set."""


class EFTDecisionModel(DecisionOptions, EngineUser, BaseDecisionModel):
    """Answer typed questions about a state with probabilities, without generating text.

    A label's probability is that of its tokens under p, the formula of the mixture, at the beginning of the
    model's answer. Those of all labels of a question add up to 1. All questions of a call share what they
    read of the state.

    Takes the fields of `EFTChatModel` that say which models answer, and shares its engines.

    Example:
        ```python
        from langchain_core.decisions import Choice, Noul
        from langchain_eft import EFTDecisionModel

        classifier = EFTDecisionModel()  # the bundled "smol" preset
        response = classifier.invoke(
            {
                "state": "I was charged twice. Please send my money back.",
                "questions": {
                    "refund": Noul(instructions="Does the customer ask for a refund?"),
                    "team": Choice(
                        instructions="Which team should answer?",
                        criteria={"billing": "payments and invoices", "technical": "bugs"},
                    ),
                },
            }
        )
        response.nouls["refund"].noul
        response.choices["team"].probabilities
        ```
    """

    @property
    @override
    def _provider(self) -> str:
        return PROVIDER

    @override
    def invoke(
        self, input: ClassifierRequest, config: RunnableConfig | None = None, **kwargs: Any
    ) -> ClassifierResponse:
        """Answer some questions about one state.

        Args:
            input: State and questions.
            config: LangChain's settings of a run.
            kwargs: Fields that have another value in this call, such as `mixture`.

        Raises:
            ModelInvalidRequestError: A question or a value that cannot be served.
            ContextOverflowError: A question and its state do not fit the context window.
        """
        return super(EFTDecisionModel, self._for_call(kwargs)).invoke(input, config)

    @override
    async def ainvoke(
        self, input: ClassifierRequest, config: RunnableConfig | None = None, **kwargs: Any
    ) -> ClassifierResponse:
        """As `invoke`, without blocking the event loop."""
        return await super(EFTDecisionModel, self._for_call(kwargs)).ainvoke(input, config)

    @override
    def _classify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        with langchain_errors():
            engine, decision = self._prepare(state, questions)
            return self._response(decision, engine.answer_logprobs(decision.given))

    @override
    async def _aclassify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        with langchain_errors():
            engine, decision = await asyncio.to_thread(self._prepare, state, questions)
            return self._response(decision, await engine.aanswer_logprobs(decision.given))

    def _for_call(self, parameters: Mapping[str, Any]) -> Self:
        """The model with other fields.

        Raises:
            ModelInvalidRequestError: A field that a call cannot set, or a value that it cannot have.
        """
        if not parameters:
            return self
        with langchain_errors():
            refuse_unknown(parameters, _CALL_PARAMETERS, "a call of a decision model")
            own = {name: getattr(self, name) for name in self.model_fields_set}
            try:
                return type(self)(**{**own, **parameters})
            except ValidationError as error:
                raise RequestError(describe(error)) from error

    def _prepare(self, state: State, questions: Mapping[str, Any]) -> tuple[BaseEngine, Decision]:
        engine, mixture = self.open(), self.active_mixture
        new_request = partial(self.formula_request, mixture=mixture)
        return engine, prepare_decision(engine, state, questions, mixture, new_request, self)

    def _response(self, decision: Decision, scores: AnswerScores) -> ClassifierResponse:
        return ClassifierResponse.model_validate(
            {
                "model": self._source().name,
                "answers": decision.answers(scores),
                "usage": decision.usage(scores),
            }
        )

    @override
    def _traced_config(self, config: RunnableConfig | None) -> RunnableConfig:
        traced = super()._traced_config(config)
        named = self.model or self.base_url or ""
        return {**traced, "metadata": {**traced["metadata"], "ls_model_name": named}}
