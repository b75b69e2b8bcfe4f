"""The smallest program that embeds the engine: one pattern, one run. Needs OPENAI_API_KEY."""

import anyio

from runmeter import Engine
from runmeter.patterns import OpenAIFunctionCallingPattern, OpenAIPatternConfig


async def main() -> None:
    """Ask one question."""
    async with OpenAIFunctionCallingPattern(OpenAIPatternConfig()) as pattern, Engine() as engine:
        result = await engine.run(pattern, "Why is the sea salty?", timeout=60)
    print(result.content)
    print(f"{result.usage.input_tokens} tokens in, {result.usage.output_tokens} out, {result.cost}")


anyio.run(main)
