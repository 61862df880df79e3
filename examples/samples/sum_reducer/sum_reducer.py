"""Adds the numbers of the message's `count` to those of the actor's state. The
actor must be stateful: then no two messages are added at once."""

import ast

from agavepy.actors import get_context, update_state

context = get_context()
sums = ast.literal_eval(context["state"]) or {}
for word, count in context["message_dict"].get("count", {}).items():
    sums[word] = sums.get(word, 0) + count
print(sums)
update_state(sums)
