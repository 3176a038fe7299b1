"""What LangChain's suites may expect of `EFTChatModel`: every gate that applies to a text model is open."""

from langchain_eft import EFTChatModel


class OneOfEach:
    """A suite that another class runs whole: `make test` runs these of its tests, `make test-full` all."""

    everyday = frozenset(
        {
            "test_stream", "test_astream", "test_usage_metadata", "test_usage_metadata_streaming",
            "test_stop_sequence", "test_tool_calling", "test_tool_choice", "test_structured_output",
            "test_tool_message_histories_string_content", "test_unicode_tool_call_integration",
        }
    )  # fmt: skip


class Gates:
    @property
    def chat_model_class(self):
        return EFTChatModel

    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_anthropic_inputs(self):
        return True

    @property
    def supports_model_override(self):
        return True
