"""Sleeps a while, again and again. The message may say how long and how often:
{"sleep": 10, "iterations": 6}."""

import time

from agavepy.actors import get_context

wishes = get_context()["message_dict"]
seconds = float(wishes.get("sleep", 10))
iterations = int(wishes.get("iterations", 6))
for iteration in range(1, iterations + 1):
    print(f"iteration {iteration} of {iterations}: sleeping {seconds:g} s", flush=True)
    time.sleep(seconds)
print("awake")
