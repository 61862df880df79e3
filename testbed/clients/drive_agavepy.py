#!/usr/bin/env python3
"""Drives the service by agavepy, as it comes from PyPI: every call of its actors.

SERVER, TOKEN and REQUESTS_CA_BUNDLE are in the environment. The images echo, wc, py3_func and
sleep_loop are known to the service. Says `all held` where they did.
"""

import json
import os

import requests
from agavepy.actors import AbacoExecutor
from agavepy.agave import Agave
from drive import equal, until

SERVER = os.environ["SERVER"]
# It has no ear for the variables by which requests would find the authority.
agave = Agave(api_server=SERVER, token=os.environ["TOKEN"], verify=os.environ["REQUESTS_CA_BUNDLE"])
actors = agave.actors


def refused(status, call, **arguments):
    try:
        call(**arguments)
    except requests.exceptions.HTTPError as error:
        equal(error.response.status_code, status, f"{error.response.text}")
        return error.response.json()["message"]
    raise AssertionError(f"{arguments}: not refused")


def ready(actor):
    return until(f"{actor} is ready", lambda: actors.get(actorId=actor)["status"] == "READY")


def complete(actor, execution):
    def ended():
        found = actors.getExecution(actorId=actor, executionId=execution)
        return found if found["status"] in ("COMPLETE", "ERROR") else None

    found = until(f"{execution} ends", ended)
    equal(found["status"], "COMPLETE", "status")
    return found


def logs(actor, execution):
    return actors.getExecutionLogs(actorId=actor, executionId=execution)["logs"]


def registration():
    equal(actors.list(), [], "actors at first")
    made = actors.add(body={"image": "echo", "name": "hello", "description": "says it back", "defaultEnvironment": {"COLOUR": "blue"}})
    actor = made["id"]
    equal((made["owner"], made["image"], made["stateless"]), ("ada", "echo", True), "a new actor")
    assert made["_links"]["self"].endswith(f"/actors/v2/{actor}"), made
    equal([one["id"] for one in actors.list()], [actor], "actors")
    ready(actor)
    changed = actors.update(actorId=actor, body={"image": "echo", "description": "changed", "defaultEnvironment": {"COLOUR": "blue"}})
    equal((changed["description"], changed["owner"]), ("changed", "ada"), "an update")
    refused(404, actors.get, actorId="no-such-actor")
    assert "image" in refused(400, actors.add, body={"name": "no image"})
    return actor


def messages(actor):
    equal(actors.getMessages(actorId=actor)["messages"], 0, "messages that wait")
    sent = actors.sendMessage(actorId=actor, body={"message": "testing execution"})
    execution = sent["executionId"]
    equal(sent["msg"], "testing execution", "the acknowledgement")
    ended = complete(actor, execution)
    for field in ("workerId", "exitCode", "finalState", "messageReceivedTime", "startTime", "io", "runtime", "cpu", "executor", "actorId"):
        assert field in ended, f"no {field} in {ended}"
    equal((ended["exitCode"], ended["executor"]), (0, "ada"), "the end")
    log = logs(actor, execution)
    for part in ("Contents of MSG: testing execution\n", "COLOUR=blue", "_abaco_username=ada", "_abaco_Content_Type=str"):
        assert part in log, f"no {part!r} in {log}"
    listed = actors.listExecutions(actorId=actor)["executions"]
    equal([(one["id"], one["status"]) for one in listed], [(execution, "COMPLETE")], "executions")

    sent = actors.sendMessage(actorId=actor, body={"a": True, "b": None, "c": "x'y"}, environment={"COLOUR": "green"})
    complete(actor, sent["executionId"])
    log = logs(actor, sent["executionId"])
    for part in ("Contents of MSG: {'a': True, 'b': None, 'c': \"x'y\"}\n", "COLOUR=green", "_abaco_Content_Type=application/json"):
        assert part in log, f"no {part!r} in {log}"

    sent = actors.sendBinaryMessage(actorId=actor, message=b"\x00\xff" * 5, headers={"Content-Type": "application/octet-stream"})
    equal(sent["msg"], "binary - omitted", "the acknowledgement of bytes")
    complete(actor, sent["executionId"])
    assert "_abaco_Content_Type=application/octet-stream" in logs(actor, sent["executionId"])
    try:
        actors.deleteMessages(actorId=actor)
    except KeyError as error:
        # It has no model of this answer, whoever gives it.
        equal(error.args, ("ActorMessagesDeleteResponse",), "a purge")
    equal(actors.getMessages(actorId=actor)["messages"], 0, "messages after a purge")


def results():
    words = actors.add(body={"image": "wc"})["id"]
    execution = actors.sendMessage(actorId=words, body={"message": "to be or not to be"})["executionId"]
    complete(words, execution)

    def result():
        return actors.getOneExecutionResult(actorId=words, executionId=execution).content

    equal(json.loads(result()), {"to": 2, "be": 2, "or": 1, "not": 1}, "the result")
    equal(result(), b"", "the result after the last")
    actors.delete(actorId=words)


def functions():
    """The remote executor: functions there, what they return back."""
    executor = AbacoExecutor(agave, image="py3_func")
    equal(executor.blocking_call(lambda x, y=0: x * 2 + y, 20, y=2), [42], "a call")
    answers = [answer.result(timeout=60) for answer in executor.map(pow, [(2, 3), (3, 2)])]
    equal(answers, [[8], [9]], "calls at once")
    # Beyond what a pipe would hold.
    equal(executor.blocking_call(len, b"x" * 1_000_000), [1_000_000], "a large argument")
    executor.delete()


def state():
    counter = actors.add(body={"image": "echo", "stateless": False})["id"]
    equal(actors.getState(actorId=counter)["state"], {}, "the first state")
    for value in ({"count": 1}, {"count": {"to": 2}}):
        actors.updateState(actorId=counter, body=value)
        equal(actors.getState(actorId=counter)["state"], value, "the state")
    actors.updateState(actorId=counter, body="plain text")
    equal(actors.getState(actorId=counter)["state"], "plain text", "a state without quotes")
    refused(404, actors.updateState, actorId=actor, body={"count": 1})
    actors.delete(actorId=counter)


def sharing(actor):
    equal(actors.getPermissions(actorId=actor), {"ada": "UPDATE"}, "permissions")
    actors.updatePermissions(actorId=actor, body={"user": "bob", "level": "READ"})
    equal(actors.getPermissions(actorId=actor), {"ada": "UPDATE", "bob": "READ"}, "permissions")

    equal(actors.listNonces(actorId=actor), [], "nonces")
    any_number = actors.addNonce(actorId=actor)
    equal((any_number["level"], any_number["maxUses"], any_number["remainingUses"]), ("EXECUTE", -1, -1), "a nonce")
    few = actors.addNonce(actorId=actor, body={"maxUses": 3, "level": "READ"})
    equal((few["level"], few["remainingUses"]), ("READ", 3), "a nonce")
    equal({one["id"] for one in actors.listNonces(actorId=actor)}, {any_number["id"], few["id"]}, "nonces")
    url = f"{SERVER}/actors/v2/{actor}"
    for allowed in (True, True, True, False):
        answer = requests.get(url, params={"x-nonce": few["id"]}, timeout=20)
        equal(answer.status_code, 200 if allowed else 400, answer.text)
    equal(actors.getNonce(actorId=actor, nonceId=few["id"])["remainingUses"], 0, "uses left")
    actors.deleteNonce(actorId=actor, nonceId=few["id"])
    equal([one["id"] for one in actors.listNonces(actorId=actor)], [any_number["id"]], "nonces")

    made = actors.addAlias(body={"alias": "greeter.v1", "actorId": actor})
    equal((made["alias"], made["actorId"], made["owner"]), ("greeter.v1", actor, "ada"), "an alias")
    equal([one["alias"] for one in actors.listAliases()], ["greeter.v1"], "aliases")
    equal(actors.getAlias(alias="greeter.v1")["actorId"], actor, "an alias")
    equal(actors.get(actorId="greeter.v1")["id"], actor, "an actor by its alias")
    actors.deleteAlias(alias="greeter.v1")
    equal(actors.listAliases(), [], "aliases")


def workers():
    counter = actors.add(body={"image": "echo", "stateless": False})["id"]
    ready(counter)
    worker = until("a worker", lambda: actors.listWorkers(actorId=counter))[0]
    assert worker["status"] in ("READY", "BUSY"), worker
    for field in ("id", "image", "location", "cid", "tenant", "chName", "lastExecutionTime", "lastHealthCheckTime"):
        assert worker[field], f"no {field} in {worker}"
    equal(actors.getWorker(actorId=counter, workerId=worker["id"])["id"], worker["id"], "a worker")
    # Ada is no administrator.
    assert "only admins are authorized to update workers" in refused(400, actors.addWorker, actorId=counter, body={"num": 2})
    actors.deleteWorker(actorId=counter, workerId=worker["id"])
    until("it is gone", lambda: worker["id"] not in [one["id"] for one in actors.listWorkers(actorId=counter)])
    actors.delete(actorId=counter)


actor = registration()
messages(actor)
results()
functions()
state()
sharing(actor)
workers()
equal(actors.delete(actorId=actor), None, "a deletion")
refused(400, actors.get, actorId=actor)
print("all held")
