#!/usr/bin/env python3
"""Drives the service by tapipy, as it comes from PyPI: every call of its actors.

SERVER and TOKEN are in the environment. The images echo, wc and py3_func are
known to the service. Says `all held` where they did.
"""

import json
import os

import cloudpickle
from drive import equal, until
from tapipy.errors import BaseTapyException, NotFoundError
from tapipy.tapis import Tapis

# Without a tenant, as inside an actor: it asks for sites and tenants first.
tapis = Tapis(base_url=os.environ["SERVER"], access_token=os.environ["TOKEN"])
actors = tapis.actors


def refused(call, **arguments):
    try:
        call(**arguments)
    except BaseTapyException as error:
        return error
    raise AssertionError(f"{arguments}: not refused")


def complete(actor, execution):
    def ended():
        found = actors.get_execution(actor_id=actor, execution_id=execution)
        return found if found.status in ("COMPLETE", "ERROR") else None

    found = until(f"{execution} ends", ended)
    equal(found.status, "COMPLETE", "status")
    return found


def logs(actor, execution):
    return actors.get_execution_logs(actor_id=actor, execution_id=execution).logs


def registration():
    equal(actors.list_actors(), [], "actors at first")
    made = actors.create_actor(image="echo", description="says it back", default_environment={"COLOUR": "blue"})
    equal((made.owner, made.image, made.stateless, made.revision), ("ada", "echo", True, 1), "a new actor")
    equal([one.id for one in actors.list_actors()], [made.id], "actors")
    until("it is ready", lambda: actors.get_actor(actor_id=made.id).status == "READY")
    changed = actors.update_actor(actor_id=made.id, image="echo", description="changed", default_environment={"COLOUR": "blue"})
    equal((changed.description, changed.owner), ("changed", "ada"), "an update")
    assert isinstance(refused(actors.get_actor, actor_id="no-such-actor"), NotFoundError)
    return made.id


def messages(actor):
    equal(actors.get_messages(actor_id=actor).messages, 0, "messages that wait")
    sent = actors.send_message(actor_id=actor, message="testing execution")
    equal((sent.msg, sent.executionId), ("testing execution", sent.execution_id), "the acknowledgement")
    ended = complete(actor, sent.execution_id)
    equal((ended.exit_code, ended.executor, ended.actor_id), (0, "ada", actor), "the end")
    log = logs(actor, sent.execution_id)
    for part in ("Contents of MSG: testing execution\n", "COLOUR=blue", "_abaco_username=ada"):
        assert part in log, f"no {part!r} in {log}"
    listed = actors.list_executions(actor_id=actor).executions
    equal([(one.id, one.status) for one in listed], [(sent.execution_id, "COMPLETE")], "executions")

    # These two have more slashes than they need.
    sent = actors.send_json_message(actor_id=actor, message={"a": True, "b": None})
    complete(actor, sent.execution_id)
    assert "Contents of MSG: {'a': True, 'b': None}\n" in logs(actor, sent.execution_id), logs(actor, sent.execution_id)
    sent = actors.send_binary_message(actor_id=actor, message=b"\x00\xff" * 5)
    complete(actor, sent.execution_id)
    assert "_abaco_Content_Type=application/octet-stream" in logs(actor, sent.execution_id)

    answer = actors.send_message(actor_id=actor, message="at once", _abaco_synchronous=True)
    assert b"Contents of MSG: at once" in answer, answer
    equal(actors.delete_pending_messages(actor_id=actor).msg, "Actor mailbox purged.", "a purge")


def results():
    words = actors.create_actor(image="wc").id
    execution = actors.send_message(actor_id=words, message="to be or not to be").execution_id
    complete(words, execution)

    def result():
        return actors.get_execution_result(actor_id=words, execution_id=execution)

    equal(json.loads(result()), {"to": 2, "be": 2, "or": 1, "not": 1}, "the result")
    equal(result(), b"", "the result after the last")
    actors.delete_actor(actor_id=words)


def functions():
    """A function there and back; the library's own executor calls what it has not."""
    executor = actors.create_actor(image="py3_func").id
    call = cloudpickle.dumps({"func": lambda x: x * 2, "args": [21], "kwargs": {}})
    execution = actors.send_binary_message(actor_id=executor, message=call).execution_id
    complete(executor, execution)
    answer = actors.get_execution_result(actor_id=executor, execution_id=execution)
    equal(cloudpickle.loads(answer), 42, "what it returned")
    actors.delete_actor(actor_id=executor)


def state():
    counter = actors.create_actor(image="echo", stateless=False).id
    equal(vars(actors.get_state(actor_id=counter).state), {}, "the first state")
    actors.update_state(actor_id=counter, request_body={"count": 1})
    equal(actors.get_state(actor_id=counter).state.count, 1, "the state")
    actors.delete_actor(actor_id=counter)


def sharing(actor):
    equal(vars(actors.list_permissions(actor_id=actor)), {"ada": "UPDATE"}, "permissions")
    actors.update_permissions(actor_id=actor, user="bob", level="READ")
    equal(vars(actors.list_permissions(actor_id=actor)), {"ada": "UPDATE", "bob": "READ"}, "permissions")

    equal(actors.list_nonces(actor_id=actor), [], "nonces")
    made = actors.create_nonce(actor_id=actor, level="READ", max_uses=3)
    equal((made.level, made.max_uses, made.remaining_uses), ("READ", 3, 3), "a nonce")
    equal([one.id for one in actors.list_nonces(actor_id=actor)], [made.id], "nonces")
    equal(actors.get_nonce(actor_id=actor, nonce_id=made.id).id, made.id, "a nonce")
    actors.delete_nonce(actor_id=actor, nonce_id=made.id)
    equal(actors.list_nonces(actor_id=actor), [], "nonces")

    other = actors.create_actor(image="echo").id
    made = actors.create_alias(alias="greeter.v1", actor_id=actor)
    equal((made.alias, made.actor_id, made.owner), ("greeter.v1", actor, "ada"), "an alias")
    equal([one.alias for one in actors.list_aliases()], ["greeter.v1"], "aliases")
    equal(actors.get_alias(alias="greeter.v1").actor_id, actor, "an alias")
    equal(actors.update_actor_alias(alias="greeter.v1", actor_id=other).actor_id, other, "another actor")
    equal(actors.get_actor(actor_id="greeter.v1").id, other, "an actor by its alias")
    actors.delete_alias(alias="greeter.v1")
    equal(actors.list_aliases(), [], "aliases")
    actors.delete_actor(actor_id=other)


def workers():
    counter = actors.create_actor(image="echo", stateless=False).id
    until("it is ready", lambda: actors.get_actor(actor_id=counter).status == "READY")
    worker = until("a worker", lambda: actors.list_workers(actor_id=counter))[0]
    assert worker.status in ("READY", "BUSY") and worker.ch_name, worker
    assert "only admins are authorized to update workers" in str(refused(actors.manage_worker_pool_size, actor_id=counter, num=2))
    actors.delete_actor(actor_id=counter)


def search(actor):
    found = actors.search_database(search_type="executions", limit=2, skip=1)
    equal(len(found.search), 2, "hits")
    equal((found._metadata.record_limit, found._metadata.records_skipped), (2, 1), "the page")


actor = registration()
messages(actor)
results()
functions()
state()
sharing(actor)
workers()
search(actor)
actors.delete_actor(actor_id=actor)
refused(actors.get_actor, actor_id=actor)
print("all held")
