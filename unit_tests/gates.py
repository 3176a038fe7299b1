"""What LangChain's suites may expect of `EFTChatModel`: every gate that applies to a text model is open."""

from langchain_eft import EFTChatModel


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
