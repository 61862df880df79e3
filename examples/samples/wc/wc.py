"""Counts how often each word occurs, in the message's `text` or the whole message.
The counts are a result; with `reducer`, they are also a message to that actor."""

import collections
import json

from agavepy.actors import get_client, get_context, send_bytes_result

context = get_context()
message = context["message_dict"]
text = message.get("text") or context["raw_message"] or ""
counts = dict(collections.Counter(str(text).split()))
print(f"{sum(counts.values())} words, {len(counts)} of them different")
send_bytes_result(json.dumps(counts).encode())

reducer = message.get("reducer")
if reducer:
    get_client().actors.sendMessage(actorId=reducer, body={"count": counts})
    print(f"sent to {reducer}")
