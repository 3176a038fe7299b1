"""EFTDecisionModel: LangChain's decision model over an emulated fine-tuned model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from pydantic import Field, ValidationError
from typing_extensions import override

from langchain_eft.chat.content_blocks import PROVIDER
from langchain_eft.chat.media import UnsupportedContent
from langchain_eft.chat.parameters import refuse_unknown
from langchain_eft.decisions.decision import Calibration, Decision, DecisionOptions, prepare_decision
from langchain_eft.engine.error_text import describe
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.protocol import EngineProtocol
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

_CALL_PARAMETERS = {
    "model", "mixture", "upscale_strength", "upscale_top_p", "length_normalized", "calibration", "score_end",
    "unsupported_content", "chat_template_kwargs",
}  # fmt: skip
"""Names of what a call may set."""


class EFTDecisionModel(EngineUser, BaseDecisionModel):
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

    length_normalized: bool = False
    """Compare labels by the mean of their tokens' log p, instead of the sum. The sum is a label's exact
    probability, which tends to be smaller for labels of many tokens; the mean has no such tendency, and is no
    probability of p."""

    calibration: Calibration = "none"
    """`contextual` divides the probability of each label by that which it has for the state "N/A", and so
    takes away a label's head start (Zhao et al. 2021)."""

    score_end: bool | None = None
    """Whether a label's probability includes that the answer ends behind it. None, the default, includes it
    where one label of the question is the beginning of another, such as "New" and "New York"."""

    unsupported_content: UnsupportedContent = "describe"
    """What happens to images and other media, which the models cannot read: `describe` puts a line of text in
    their place, `error` refuses the call."""

    chat_template_kwargs: dict[str, Any] = Field(default_factory=lambda: {"enable_thinking": False})
    """Variables of the chat template. Decisions are read where the answer begins, so reasoning is off."""

    sanitize_control_tokens: bool = True
    """Read special tokens such as `<|im_end|>` in states, questions and labels as ordinary text."""

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
        engine = self.open()
        with langchain_errors():
            decision = self._prepare(engine, state, questions)
            return self._response(decision, engine.answer_logprobs(decision.given))

    @override
    async def _aclassify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        engine = await self._aopen()
        with langchain_errors():
            decision = await asyncio.to_thread(self._prepare, engine, state, questions)
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

    def _prepare(self, engine: EngineProtocol, state: State, questions: Mapping[str, Any]) -> Decision:
        options = DecisionOptions(
            length_normalized=self.length_normalized,
            calibration=self.calibration,
            score_end=self.score_end,
            unsupported_content=self.unsupported_content,
            chat_template_kwargs=self.chat_template_kwargs,
            sanitize_control_tokens=self.sanitize_control_tokens,
        )
        mixture = self.active_mixture
        new_request = partial(self.formula_request, mixture=mixture)
        return prepare_decision(engine, state, questions, mixture, new_request, options)

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
