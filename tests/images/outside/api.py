"""The Messages API, as much of it as a command line client needs in order to print an answer."""

import json

MODELS = ("claude-opus-4-1", "claude-sonnet-4-5", "claude-haiku-4-5")
ANSWER = "Hello from outside."


def models():
    entries = [{"type": "model", "id": name, "display_name": name, "created_at": "2025-01-01T00:00:00Z"} for name in MODELS]
    return {"data": entries, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}


def message(request, content, stop):
    return {
        "id": "msg_outside",
        "type": "message",
        "role": "assistant",
        "model": request.get("model", MODELS[1]),
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    }


def whole(request):
    return message(request, [{"type": "text", "text": ANSWER}], "end_turn")


def stream(request):
    """The events of a streamed answer, one word each, as (event, data)."""
    yield event("message_start", message=message(request, [], None))
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield event("ping")
    for word in ANSWER.split(" "):
        text = word if word == ANSWER.split(" ", 1)[0] else f" {word}"
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
    yield event("content_block_stop", index=0)
    yield event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 5})
    yield event("message_stop")


def event(name, **fields):
    return name, json.dumps({"type": name, **fields})


def error(kind, text):
    return {"type": "error", "error": {"type": kind, "message": text}}
