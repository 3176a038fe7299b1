"""Calls whose answers are the same in process and on every server: tools, schemas, mixtures, sampling."""


def tool(name, description, **properties) -> dict:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def said(*texts) -> list[dict]:
    """A conversation in turns, the user's first."""
    roles = ["user", "assistant"] * len(texts)
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


WEATHER = tool("get_weather", "Get the weather at a location.", location={"type": "string"})
ADD = tool("add", "Add two numbers.", a={"type": "integer"}, b={"type": "integer"})
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
WHALES = said("Tell me about whales.")
JAPAN = said("What is the capital of Japan?")
RAIN = said("What is the weather in Paris?")
SUM = said("Add 17 and 25.")
CALLED = [
    *RAIN,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"location": "Paris"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "It is sunny."},
]
SAMPLED = {"temperature": 0.9, "seed": 7}

CASES = {
    "default": (JAPAN, {}),
    "base alone": (JAPAN, {"mixture": {}}),
    "pirate": (WHALES, {"mixture": {"pirate": 1.0}}),
    "two behaviors": (WHALES, {"mixture": {"pirate": 0.7, "concise": 0.6}}),
    "refusal": (said("How can I steal my neighbor's guitar?"), {"mixture": {"harmless": 1.0}}),
    "ramp": (WHALES, {"mixture": {"pirate": {"start": 0.0, "end": 1.5, "tokens": 12}}}),
    "first tokens": (WHALES, {"mixture": {"pirate": {"tokens": 6, "weight": 1.5, "then": 0.0}}}),
    "strength": (JAPAN, {"mixture": {"concise": 1.0}, "upscale_strength": 1.3}),
    "conservative": (WHALES, {"mixture": {"pirate": 1.0}, "upscale_top_p": 0.7}),
    "sampled": (WHALES, SAMPLED),
    "sampled mixture": (WHALES, {**SAMPLED, "mixture": {"pirate": 1.0, "harmless": 0.3}}),
    "filters": (WHALES, {**SAMPLED, "top_p": 0.8, "top_k": 40, "min_p": 0.01}),
    "penalties": (WHALES, {**SAMPLED, "frequency_penalty": 0.7, "presence_penalty": 0.4}),
    "repetition": (WHALES, {"repetition_penalty": 1.3}),
    "bias": (JAPAN, {"logit_bias": {"5": 4.0}}),
    "stop": (WHALES, {"stop": [" are", "."]}),
    "speculation off": (WHALES, {"mixture": {"pirate": 1.0}, "speculation": "off"}),
    "speculation fixed": (WHALES, {"mixture": {"pirate": 1.0}, "speculation": 4}),
    "cut": (WHALES, {"max_tokens": 5}),
    "beginning": (WHALES, {**SAMPLED, "answer_prefix": [504, 1690]}),
    "system": ([{"role": "system", "content": "You are brief."}, *WHALES], {}),
    "turns": (said("What is the capital of Japan?", "Tokyo.", "And of France?"), {}),
    "unicode": (said("Translate: «Ça va?» 你好 🐳"), {"mixture": {"concise": 1.0}}),
    "trace": (JAPAN, {"mixture": {"pirate": 1.0}, "trace": True, "max_tokens": 6}),
    "tool by choice": (RAIN, {"tools": [WEATHER, ADD]}),
    "tool required": (SUM, {"tools": [WEATHER, ADD], "tool_choice": "required"}),
    "tool by name": (
        SUM,
        {"tools": [WEATHER, ADD], "tool_choice": {"type": "function", "function": {"name": "add"}}},
    ),
    "tools at once": (
        said("Weather in Paris and in Rome?"),
        {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": True, "max_tokens": 60},
    ),
    "tool strict": (SUM, {"tools": [ADD], "strict": True}),
    "after a tool": (CALLED, {"tools": [WEATHER]}),
    "schema": (JAPAN, {"response_format": SCHEMA}),
    "any object": (said("Name a city as JSON."), {"response_format": {"type": "json_object"}}),
    "tool or schema": (JAPAN, {"tools": [WEATHER], "response_format": SCHEMA}),
}
COMMON = {"temperature": 0, "max_tokens": 32, "logprobs": True, "top_logprobs": 2}
