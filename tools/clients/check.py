"""Talks to a running `trilut serve` as its users do: with the `openai` and `ollama` packages and LangChain.

    python check.py http://127.0.0.1:8080

Expects the embedded model. Exits with an error when a client does not get what it should.
"""

import json
import sys
import threading
from typing import Literal

import ollama
import openai
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

MODEL = "demo"
QUESTION = [{"role": "user", "content": "Tell me a story about a fox."}]


def openai_chats(client):
    assert [model.id for model in client.models.list()] == [MODEL]
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=40)
    text = whole.choices[0].message.content
    assert "fox" in text, text
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=40, stream=True,
        stream_options={"include_usage": True},
    )
    pieces, usage = [], None
    for chunk in stream:
        pieces += [choice.delta.content or "" for choice in chunk.choices]
        usage = chunk.usage or usage
    assert "".join(pieces) == text
    assert usage.completion_tokens == whole.usage.completion_tokens
    answers = client.chat.completions.create(
        model=MODEL, messages=QUESTION, n=3, seed=1, temperature=1.2, max_tokens=12,
        logprobs=True, top_logprobs=2, stop=["\n"],
    )
    assert len({choice.message.content for choice in answers.choices}) > 1
    assert all(len(token.top_logprobs) == 2 for token in answers.choices[0].logprobs.content)
    plain = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=8, temperature=0)
    assert plain.choices[0].text
    return text


def openai_schemas(client):
    class Animal(BaseModel):
        kind: Literal["fox", "owl"]
        tame: bool

    answer = client.chat.completions.parse(
        model=MODEL, messages=QUESTION, response_format=Animal, max_tokens=60, seed=1,
    )
    assert isinstance(answer.choices[0].message.parsed, Animal)


def openai_errors(client):
    def fails(kind, **changes):
        request = {"model": MODEL, "messages": QUESTION, **changes}
        try:
            client.chat.completions.create(**request)
        except kind as error:
            return error
        raise AssertionError(f"{changes} did not fail")

    assert fails(openai.NotFoundError, model="gpt-4o").code == "model_not_found"
    assert fails(openai.BadRequestError, temperature=-1).param == "temperature"
    long = [{"role": "user", "content": "fox " * 5000}]
    assert fails(openai.BadRequestError, messages=long).code == "context_length_exceeded"


def openai_embeds(client):
    """Vectors of length 1, the same as numbers and as bytes."""
    texts = ["The fox was happy.", "The fox was glad."]
    made = client.embeddings.create(model=MODEL, input=texts)
    vectors = [item.embedding for item in made.data]
    numbers = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    assert vectors == [item.embedding for item in numbers.data]
    assert all(abs(sum(value * value for value in vector) - 1) < 1e-4 for vector in vectors)
    assert made.usage.total_tokens > 0
    return texts, vectors


def openai_stops(client):
    """A stream that is broken off leaves the server in order."""
    for _ in range(3):
        stream = client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
        next(iter(stream))
        stream.close()


def ollama_chats(client, text):
    assert client.list().models[0].model == f"{MODEL}:latest"
    assert client.show(MODEL).details.family == "bitnet-b1.58"
    options = {"temperature": 0, "num_predict": 40}
    assert client.chat(MODEL, QUESTION, options=options).message.content == text
    stream = client.chat(MODEL, QUESTION, options=options, stream=True)
    parts = list(stream)
    assert "".join(part.message.content for part in parts) == text
    assert parts[-1].done and parts[-1].eval_count > 0
    assert client.generate(MODEL, QUESTION[0]["content"], options=options).response == text
    parts = list(client.generate(MODEL, QUESTION[0]["content"], options=options, stream=True))
    assert "".join(part.response for part in parts) == text
    assert parts[-1].done_reason == "length", parts[-1]
    schema = {"type": "object", "properties": {"tame": {"type": "boolean"}}, "required": ["tame"],
              "additionalProperties": False}
    answer = client.chat(MODEL, QUESTION, format=schema, options={"num_predict": 60, "seed": 1})
    assert isinstance(json.loads(answer.message.content)["tame"], bool)
    try:
        client.chat("other", QUESTION)
    except ollama.ResponseError as error:
        assert error.status_code == 404, error
    else:
        raise AssertionError("a model that does not exist has answered")


def ollama_embeds(client, texts, vectors):
    assert all(
        abs(one - other) < 1e-6
        for own, vector in zip(client.embed(MODEL, texts).embeddings, vectors, strict=True)
        for one, other in zip(own, vector, strict=True)
    )


def langchain(address, text, texts, vectors):
    chat = ChatOpenAI(base_url=f"{address}/v1", api_key="none", model=MODEL, temperature=0, max_tokens=40)
    question = QUESTION[0]["content"]
    assert chat.invoke(question).content == text
    assert "".join(chunk.content for chunk in chat.stream(question)) == text
    for kind, model, asked in [
        (openai.NotFoundError, "gpt-4o", question),
        (openai.BadRequestError, MODEL, "fox " * 5000),
    ]:
        try:
            chat.model_copy(update={"model_name": model}).invoke(asked)
        except kind:
            continue
        raise AssertionError(f"{model} has answered what it cannot")
    # LangChain would count tokens with OpenAI's own tokenizer otherwise.
    embeddings = OpenAIEmbeddings(
        base_url=f"{address}/v1", api_key="none", model=MODEL, check_embedding_ctx_length=False,
    )
    assert embeddings.embed_documents(texts) == vectors


def together(client, text):
    """Many at once get the text that each gets alone."""
    answers = []

    def ask():
        answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=40)
        answers.append(answer.choices[0].message.content)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [text] * 12, answers


def main():
    address = sys.argv[1]
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60)
    text = openai_chats(client)
    openai_schemas(client)
    openai_errors(client)
    openai_stops(client)
    texts, vectors = openai_embeds(client)
    ollama_chats(ollama.Client(address), text)
    ollama_embeds(ollama.Client(address), texts, vectors)
    langchain(address, text, texts, vectors)
    together(client, text)
    print("openai, ollama and langchain-openai got what they asked for")


if __name__ == "__main__":
    main()
