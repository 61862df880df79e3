#!/usr/bin/env python3
"""The checks find what they are there for: a clean record passes, and each lie
in it is noticed. Needs nothing."""

import base64
import collections
import json
import unittest
from types import SimpleNamespace

import checks
import faults
from load import Actor, Collector, Post, epoch_of

MAX_ATTEMPTS = 3


def token_payload(epoch):
    return base64.urlsafe_b64encode(json.dumps({"abax/epoch": epoch}).encode()).decode().rstrip("=")


class Record:
    """What a run leaves: one stateless execution that took two claims, and two stateful ones."""

    def __init__(self):
        self.actors = {
            "S": Actor("plain", "T", False, "", 1, 1, id="S"),
            "C": Actor("counter", "T", True, "", 1, 1, id="C"),
        }
        self.executions, self.logs = {}, {}
        self.audit = collections.defaultdict(list)
        self.collector = Collector()
        self.load = SimpleNamespace(posts=[])
        self.max_attempts = MAX_ATTEMPTS
        self.apis = [SimpleNamespace(request=lambda *_, **__: (200, {"result": {"state": self.state}}))]
        self.state = {"count": 2}
        self.changes = 0
        self.add("S", "e1", 1, epoch=2)
        self.add("C", "e2", 2, state=0)
        self.add("C", "e3", 3, state=1)

    def change(self, execution, became, epoch):
        row = self.executions[execution]
        self.changes += 1
        story = self.audit[execution]
        story.append({
            "number": self.changes, "execution_id": execution, "actor_id": row["actor_id"], "sequence": row["sequence"],
            "was": story[-1]["became"] if story else None, "became": became, "epoch": epoch, "attempt": epoch, "host_id": None, "at": "",
        })

    def add(self, actor, execution, sequence, epoch=1, state=None):
        self.executions[execution] = {
            "id": execution, "actor_id": actor, "sequence": sequence, "status": "COMPLETE", "outcome": "succeeded", "reason": None, "attempt": epoch,
            "epoch": epoch, "worker_id": "w", "exit_code": 0, "lease_until_us": None, "staged_state": None, "body": f"tag-{execution} 5",
        }
        self.load.posts.append(Post(f"tag-{execution}", self.actors[actor], "accepted", execution))
        self.change(execution, "SUBMITTED", 0)
        for claim in range(1, epoch + 1):
            self.change(execution, "RUNNING", claim)
            nonce = f"{execution}{claim}"
            for what in ("begin", "end"):
                self.collector.take(what, execution, nonce, str(claim), "w", token_payload(claim), f"tag-{execution}")
            self.change(execution, "SUBMITTED" if claim < epoch else "COMPLETE", claim)
        written = "" if state is None else f"state read={state} writes={state + 1}\nstate accepted\n"
        self.logs[execution] = f"begin nonce={nonce} attempt={epoch} worker=w tag=t\n{written}end nonce={nonce}\n"

    log = lambda self, execution: self.logs[execution["id"]]
    winner = checks.Evidence.winner
    story = checks.Evidence.story


class Lies(unittest.TestCase):
    def setUp(self):
        self.record = Record()

    def found_by(self, *expected):
        every = (checks.accepted_messages, checks.settlements, checks.one_at_a_time, checks.outcomes, checks.winners, checks.counters)
        found = {check.__name__ for check in every if list(check(self.record))}
        self.assertEqual(found & set(expected), set(expected))
        if not expected:
            self.assertEqual(found, set())

    def test_a_clean_record_passes(self):
        self.found_by()

    def test_a_lost_message(self):
        del self.record.executions["e1"]
        self.found_by("accepted_messages")

    def test_a_message_twice(self):
        self.record.executions["e4"] = {**self.record.executions["e1"], "id": "e4"}
        self.record.logs["e4"] = ""
        self.found_by("accepted_messages")

    def test_a_second_settlement(self):
        self.record.change("e1", "RUNNING", 3)
        self.record.change("e1", "COMPLETE", 3)
        self.found_by("settlements")

    def test_an_execution_that_never_ended(self):
        self.record.executions["e1"]["status"] = "RUNNING"
        self.found_by("settlements")

    def test_a_forgotten_lease(self):
        self.record.executions["e1"]["lease_until_us"] = 5
        self.found_by("settlements")

    def test_too_many_attempts(self):
        self.record.audit["e1"][-1]["attempt"] = MAX_ATTEMPTS + 1
        self.found_by("settlements")

    def test_two_at_a_time(self):
        first, second = self.record.audit["e2"], self.record.audit["e3"]
        first[-1]["number"], second[1]["number"] = second[1]["number"], first[-1]["number"]
        self.found_by("one_at_a_time")

    def test_a_cancellation_that_nobody_asked_for(self):
        self.record.executions["e1"]["outcome"] = "cancelled"
        self.found_by("outcomes")

    def test_a_log_of_another_attempt(self):
        self.record.logs["e1"] = self.record.logs["e1"].replace("e12", "e11")
        self.found_by("winners")

    def test_a_log_of_two_attempts(self):
        self.record.logs["e1"] += "begin nonce=e11\n"
        self.found_by("winners")

    def test_a_log_that_is_cut(self):
        self.record.logs["e1"] = self.record.logs["e1"].splitlines()[0]
        self.found_by("winners")

    def test_more_effects_than_claims(self):
        self.record.collector.take("begin", "e2", "another", "1", "w", token_payload(1), "t")
        self.found_by("winners")

    def test_a_state_that_counts_too_much(self):
        self.record.state = {"count": 3}
        self.found_by("counters")

    def test_a_state_that_counts_too_little(self):
        self.record.state = {"count": 1}
        self.found_by("counters")

    def test_a_state_that_was_read_too_early(self):
        self.record.logs["e3"] = self.record.logs["e3"].replace("read=1 writes=2", "read=0 writes=1")
        self.found_by("counters")


class Schedules(unittest.TestCase):
    def test_a_seed_decides_everything(self):
        make = lambda seed: [str(fault) for fault in faults.schedule(seed, 300, ["a"], ["w", "x"], 6)]
        self.assertEqual(make(1), make(1))
        self.assertNotEqual(make(1), make(2))

    def test_faults_end_before_the_run_does(self):
        for fault in faults.schedule(3, 180, ["a"], ["w"], 6):
            self.assertLess(fault.at + fault.seconds, 180)
            self.assertTrue(callable(getattr(faults.Cards(None), fault.kind)))

    def test_a_short_run_meets_nearly_every_kind(self):
        kinds = {fault.kind for fault in faults.schedule(3, 180, ["a"], ["w"], 6)}
        self.assertGreaterEqual(len(kinds), 10)


class Tokens(unittest.TestCase):
    def test_the_epoch_is_read_from_the_token(self):
        self.assertEqual(epoch_of(token_payload(4)), 4)
        self.assertIsNone(epoch_of("-"))


if __name__ == "__main__":
    unittest.main()
