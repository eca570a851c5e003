"""Anthropic's Messages API, as much of it as Claude Code needs: models, token counts, and answers, streamed or whole."""

import json
import re
import time

import task

MODELS = ("claude-opus-4-1", "claude-sonnet-4-5", "claude-haiku-4-5")


def models():
    entries = [{"type": "model", "id": name, "display_name": name, "created_at": "2025-01-01T00:00:00Z"} for name in MODELS]
    return {"data": entries, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}


def reply(request):
    """The next message of the assistant: its content and why it stops there."""
    if not any(tool.get("name") == "Bash" for tool in request.get("tools", [])):
        return [text(task.GREETING)], "end_turn"
    results = results_since_question(request["messages"])
    if results is None:
        return [text(task.GREETING)], "end_turn"
    if not results:
        return [text("I let the shell do the sum."), tool_use("Bash", {"command": task.COMMAND, "description": "Do the sum"})], "tool_use"
    if len(results) == 1:
        directory = re.search(r"^in (/.*)$", results[0], re.MULTILINE)
        path = f"{directory[1]}/{task.FILE}" if directory else task.FILE
        return [text("Now I read the file."), tool_use("Read", {"file_path": path})], "tool_use"
    return [text(task.answer(results))], "end_turn"


def results_since_question(messages):
    """The tool results that follow the last question, or None when that question does not ask for tools."""
    results = []
    for message in reversed(messages):
        if message["role"] != "user":
            continue
        blocks = message["content"]
        blocks = [text(blocks)] if isinstance(blocks, str) else blocks
        found = [plain(block.get("content", "")) for block in blocks if block["type"] == "tool_result"]
        if found:
            results = found + results
        elif any(task.MARK in block.get("text", "") for block in blocks):
            return results
        elif any(not block.get("text", "").startswith("<system-reminder>") for block in blocks):
            return None
    return None


def plain(content):
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def text(content):
    return {"type": "text", "text": content}


def tool_use(name, arguments):
    return {"type": "tool_use", "id": f"toolu_{time.time_ns()}", "name": name, "input": arguments}


def message(request, content, stop):
    return {
        "id": f"msg_{time.time_ns()}",
        "type": "message",
        "role": "assistant",
        "model": request.get("model", MODELS[1]),
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    }


def whole(request):
    return message(request, *reply(request))


def stream(request):
    """The events of a streamed answer, as (event, data). A text comes word by word, a tool's input in two pieces."""
    content, stop = reply(request)
    yield event("message_start", message=message(request, [], None))
    yield event("ping")
    for index, block in enumerate(content):
        if block["type"] == "text":
            start, deltas = text(""), [{"type": "text_delta", "text": word} for word in task.words(block["text"])]
        else:
            start, encoded = {**block, "input": {}}, json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in (encoded[:9], encoded[9:])]
        yield event("content_block_start", index=index, content_block=start)
        for delta in deltas:
            time.sleep(task.PAUSE)
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    yield event("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage={"output_tokens": 5})
    yield event("message_stop")


def event(name, **fields):
    return name, json.dumps({"type": name, **fields})


def error(kind, text):
    return {"type": "error", "error": {"type": kind, "message": text}}
