"""OpenAI's Responses API, as much of it as Codex needs: streamed answers over HTTP and over a WebSocket.

Codex gives its model one tool, `exec`, which runs JavaScript that calls the others.
"""

import json
import time

import task

SHELL = f"const shown = await tools.exec_command({{cmd: {json.dumps(task.COMMAND)}}}); text(shown.output);"
PATCH = "\n".join(
    ("*** Begin Patch", f"*** Update File: {task.FILE}", "@@", f"-{task.RESULT}", f"+{task.RESULT}, as the shell says", "*** End Patch")
)
EDIT = (
    f"await tools.apply_patch({json.dumps(PATCH)}); "
    f"const shown = await tools.exec_command({{cmd: {json.dumps('cat ' + task.FILE)}}}); text(shown.output);"
)


def reply(items):
    """The next item of the assistant."""
    results = []
    for item in reversed(items):
        if item["type"] == "custom_tool_call_output":
            results.insert(0, plain(item["output"]))
        elif item["type"] == "message" and item["role"] == "user":
            if task.MARK not in plain(item["content"]):
                return say(task.GREETING)
            return (call(SHELL), call(EDIT))[len(results)] if len(results) < 2 else say(task.answer(results))
    return say(task.GREETING)


def plain(content):
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def say(text):
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"type": "message", "id": f"msg_{time.time_ns()}", "role": "assistant", "status": "completed", "content": content}


def call(script):
    now = time.time_ns()
    return {"type": "custom_tool_call", "id": f"ctc_{now}", "call_id": f"call_{now}", "namespace": "functions", "name": "exec", "input": script, "status": "completed"}


def stream(request, items):
    """The events of a streamed answer to the whole conversation, as (event, data)."""
    response = {
        "id": f"resp_{time.time_ns()}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "model": request.get("model"),
        "output": [],
    }
    yield event("response.created", response=response)
    output = []
    # A client may open a conversation without a question, so as to have the connection ready.
    if request.get("generate", True):
        item = reply(items)
        output.append(item)
        yield from one_item(item)
    usage = {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 15}
    yield event("response.completed", response={**response, "status": "completed", "output": output, "usage": usage})


def one_item(item):
    if item["type"] != "message":
        yield event("response.output_item.added", output_index=0, item={**item, "input": "", "status": "in_progress"})
        time.sleep(task.PAUSE)
        yield event("response.custom_tool_call_input.delta", item_id=item["id"], call_id=item["call_id"], output_index=0, delta=item["input"])
    else:
        yield event("response.output_item.added", output_index=0, item={**item, "content": [], "status": "in_progress"})
        for word in task.words(item["content"][0]["text"]):
            time.sleep(task.PAUSE)
            yield event("response.output_text.delta", item_id=item["id"], output_index=0, content_index=0, delta=word, logprobs=[])
    yield event("response.output_item.done", output_index=0, item=item)


def event(name, **fields):
    return name, json.dumps({"type": name, **fields})


class Conversations:
    """The conversations of one WebSocket: a request names the response that it continues and sends only what is new."""

    def __init__(self):
        self.known = {}

    def answer(self, request):
        """The events of the answer."""
        items = self.known.get(request.get("previous_response_id"), []) + request["input"]
        for name, data in stream(request, items):
            if name == "response.completed":
                response = json.loads(data)["response"]
                self.known[response["id"]] = items + response["output"]
            yield data


def error(kind, text):
    return {"error": {"type": kind, "code": kind, "message": text, "param": None}}
