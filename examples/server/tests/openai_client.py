"""The real OpenAI client against the server: python3 openai_client.py URL TEXT, where TEXT is what the model says to "JULIET."
with 24 new tokens, the likeliest each time. Needs `pip install openai`."""

import asyncio
import sys

import openai

url, wanted = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120)

assert [model.id for model in client.models.list()] == ["bard"]
ask = dict(model="bard", prompt="JULIET.", max_tokens=24, temperature=0)
whole = client.completions.create(**ask)
assert whole.choices[0].text == wanted, (whole.choices[0].text, wanted)
assert whole.choices[0].finish_reason == "length"
assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (7, 24, 31)
echoed = client.completions.create(**ask, echo=True)
assert echoed.choices[0].text == "JULIET." + wanted
chunks = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == wanted
assert chunks[-1].usage.completion_tokens == 24 and len(chunks) > 10
drawn = [client.completions.create(**ask | dict(temperature=0.8, top_p=0.9, seed=seed)).choices[0].text for seed in (5, 5, 6)]
assert drawn[0] == drawn[1] != drawn[2], drawn

# A conversation says what its plain form says as a prompt.
talk = [{"role": "system", "content": "Speak verse."}, {"role": "user", "content": [{"type": "text", "text": "Who?"}]}]
plain = "system: Speak verse.\n\nuser: Who?\n\nassistant:"
answered = client.completions.create(**ask | dict(prompt=plain)).choices[0].text
said = client.chat.completions.create(model="bard", messages=talk, max_completion_tokens=24, temperature=0)
assert said.choices[0].message.role == "assistant" and said.choices[0].message.content == answered
assert said.usage.prompt_tokens == len(plain)
streamed = list(client.chat.completions.create(model="bard", messages=talk, max_tokens=24, temperature=0, stream=True))
assert streamed[0].choices[0].delta.role == "assistant"
assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == answered
assert streamed[-1].choices[0].finish_reason == "length"
stopped = client.chat.completions.create(model="bard", messages=talk, max_tokens=24, temperature=0, stop=[answered[5:8]])
assert stopped.choices[0].message.content == answered[: answered.find(answered[5:8])]
assert stopped.choices[0].finish_reason == "stop"


def refused(kind, words, call):
    try:
        call()
    except kind as error:
        assert words in error.message, error.message
        return
    raise AssertionError(f"not refused: {words}")


refused(openai.NotFoundError, "no model `poet`", lambda: client.completions.create(**ask | dict(model="poet")))
refused(openai.BadRequestError, "tokens", lambda: client.completions.create(**ask | dict(prompt="a" * 300)))
refused(openai.BadRequestError, "`max_tokens` is 999", lambda: client.completions.create(**ask | dict(max_tokens=999)))
refused(openai.BadRequestError, "tools", lambda: client.chat.completions.create(
    model="bard", messages=talk, tools=[{"type": "function", "function": {"name": "f"}}]))


async def many():
    """At once, in one event loop, each its own; one leaves in the middle."""
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as at_once:
        async def one(number):
            stream = await at_once.completions.create(**ask | dict(prompt="JULIET." if number % 2 else plain), stream=True)
            text = ""
            async for chunk in stream:
                text += chunk.choices[0].text
                if number == 0 and len(text) > 4:
                    await stream.close()
                    return
            assert text == (wanted if number % 2 else answered), (number, text)

        await asyncio.gather(*(one(number) for number in range(16)))


asyncio.run(many())
print(f"openai {openai.__version__}: everything as it should be")
