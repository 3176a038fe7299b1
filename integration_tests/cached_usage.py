"""What both suites of LangChain on the bundled weights say about cached tokens."""

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import add_ai_message_chunks


class CachedUsage:
    """A second turn of a conversation finds the first one in the prefix cache."""

    @property
    def supported_usage_metadata_details(self):
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        """The next turn of a conversation, which finds the turns before it in the prefix cache."""
        model = self.chat_model_class(**self.chat_model_params)
        history: list[BaseMessage] = [HumanMessage("What is the capital of Japan? Answer in one sentence.")]
        history += [model.invoke(history), HumanMessage("And of France?")]
        message = add_ai_message_chunks(*model.stream(history)) if stream else model.invoke(history)
        assert message.usage_metadata["input_token_details"]["cache_read"] > 0
        return message
