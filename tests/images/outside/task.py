"""The conversation that both model APIs play: a shell command, a file tool, and an answer made of what the two returned.

A question that contains `MARK` starts it. Any other question is answered at once with `GREETING`.
"""

MARK = "with your tools"
GREETING = "Hello from outside."
FILE = "answer.txt"
# The shell does the sum, so that a result that contains RESULT shows that the command really ran.
COMMAND = f"echo 6 times 7 is $((6 * 7)) > {FILE}; cat $PWD/{FILE}; echo in $PWD"
RESULT = "6 times 7 is 42"
# Between two pieces of a streamed answer, in seconds.
PAUSE = 0.01


def answer(results):
    """The last message, once both tools have returned."""
    missing = [str(number) for number, result in enumerate(results, 1) if RESULT not in result]
    if missing:
        return f"Tool call {' and '.join(missing)} did not return the result."
    return f"The tools agree: {RESULT}."


def words(text):
    """The text in pieces that give the whole when joined."""
    return [word if number == 0 else f" {word}" for number, word in enumerate(text.split(" "))]
