"""An actor that tells what both libraries see of its message, and sends results.
Each line of its log is `library name value`, the value as JSON."""

import json
import os

import agavepy.actors
import tapipy.actors

for library in (agavepy.actors, tapipy.actors):
    name = library.__name__.split(".")[0]
    context = library.get_context()
    for key in ("raw_message", "content_type", "actor_id", "actor_dbid", "execution_id", "username", "state", "message_dict"):
        print(name, key, json.dumps(context[key]))
    # What only one of them has by these names, both have by the variables'.
    for key in ("_abaco_worker_id", "_abaco_actor_name", "_abaco_container_repo"):
        print(name, key, json.dumps(context[key]))
    if os.path.exists("/_abaco_binary_data"):
        message = library.get_binary_message()
        print(name, "binary", len(message), sum(message))
    library.send_bytes_result(f"{name} as {os.getuid()}".encode())
    library.send_python_result({"from": name})
