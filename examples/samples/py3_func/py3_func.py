"""Calls the function that comes pickled with its arguments, and sends back what it
returned. The sender's Python must be of the same version."""

import os

import cloudpickle
from agavepy.actors import get_binary_message, send_python_result

call = cloudpickle.loads(get_binary_message())
if call.get("cwd"):
    os.chdir(call["cwd"])
send_python_result(call["func"](*call.get("args", ()), **call.get("kwargs", {})))
