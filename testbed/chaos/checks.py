"""What must be true when everything is healed and nothing waits any more.

Each check yields sentences that say what is wrong, with the evidence.
"""

import collections
import contextlib
import json
import os
import pathlib
import re

from network import PREFIX, entering, run
from servers import control_groups

FINAL = ("COMPLETE", "ERROR")

# Written by the database itself, so that it knows of every change of a status,
# whoever makes it.
AUDIT = """
create table chaos_audit (
    number bigint generated always as identity primary key,
    execution_id text not null, actor_id text not null, sequence bigint not null,
    was text, became text not null, epoch bigint not null, attempt bigint not null, host_id text, at timestamptz not null default clock_timestamp()
);
create function chaos_audit() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' or old.status is distinct from new.status or old.epoch is distinct from new.epoch then
        insert into chaos_audit (execution_id, actor_id, sequence, was, became, epoch, attempt, host_id)
        values (new.id, new.actor_id, new.sequence, case when tg_op = 'UPDATE' then old.status end, new.status, new.epoch, new.attempt, new.host_id);
    end if;
    return null;
end $$;
create trigger chaos_audit after insert or update on executions for each row execute function chaos_audit();
"""


def rows(database, sql):
    """Each row as a dictionary."""
    text = database.psql(f"select row_to_json(t) from ({sql}) t")
    return [json.loads(line) for line in text.splitlines()]


class Evidence:
    """The store, the log of status changes, the ledger and the effects, side by side."""

    def __init__(self, database, load, collector, apis, max_attempts):
        self.load, self.collector, self.apis, self.max_attempts = load, collector, apis, max_attempts
        self.executions = {
            row["id"]: row
            for row in rows(
                database,
                "select id, actor_id, sequence, status, outcome, reason, attempt, epoch, worker_id, exit_code, lease_until_us, "
                "staged_state, body, accepted_us, stored_us from executions join messages on execution_id = id",
            )
        }
        self.audit = collections.defaultdict(list)
        for row in rows(database, "select * from chaos_audit order by number"):
            self.audit[row["execution_id"]].append(row)
        self.actors = {actor.id: actor for actor in load.actors}
        self.logs = {}

    def log(self, execution):
        """The log as the API gives it."""
        if execution["id"] not in self.logs:
            actor = self.actors[execution["actor_id"]]
            status, answer = self.apis[0].request(actor.token, "GET", f"/actors/v2/{actor.id}/executions/{execution['id']}/logs", timeout=20)
            self.logs[execution["id"]] = answer["result"]["logs"] if status == 200 else f"status {status}: {answer}"
        return self.logs[execution["id"]]

    def winner(self, execution):
        """The nonces that told effects under the claim that the row ended with."""
        effects = self.collector.effects.get(execution["id"], [])
        return {effect.nonce for effect in effects if effect.epoch == execution["epoch"]}

    def story(self, execution):
        """All that is known of one execution, for a person to read."""
        lines = [json.dumps(execution)]
        lines += [f"  {a['at']} {a['was']} -> {a['became']} epoch {a['epoch']} attempt {a['attempt']} host {a['host_id']}" for a in self.audit[execution["id"]]]
        lines += [f"  {effect}" for effect in self.collector.effects.get(execution["id"], [])]
        with contextlib.suppress(Exception):
            lines += [f"  log: {line}" for line in self.log(execution).splitlines()]
        return "\n".join(lines)


def accepted_messages(evidence):
    """A 2xx means that the row is there; each POST made at most one; nothing came from nowhere."""
    by_tag = collections.defaultdict(list)
    for execution in evidence.executions.values():
        by_tag[execution["body"].split()[0].strip('"')].append(execution)
    posts = {post.tag: post for post in evidence.load.posts}
    for post in posts.values():
        stored = by_tag.get(post.tag, [])
        if post.outcome == "accepted" and [execution["id"] for execution in stored] != [post.execution]:
            yield f"the message {post.tag} was accepted as {post.execution}; the store has {stored}"
        if len(stored) > 1:
            yield f"one POST made {len(stored)} executions: {post} {stored}"
        if post.outcome == "refused" and stored:
            yield f"the message {post.tag} was refused ({post.detail}) and stored: {stored}"
    for tag in by_tag.keys() - posts.keys():
        yield f"nobody posted {tag}: {by_tag[tag]}"


def settlements(evidence):
    """Each execution has one final status, reached once, by the rules."""
    for execution in evidence.executions.values():
        story = evidence.audit[execution["id"]]
        finals = [row for row in story if row["became"] in FINAL]
        if execution["status"] not in FINAL or len(finals) != 1 or story[-1] is not finals[0]:
            yield f"settled {len(finals)} times:\n{evidence.story(execution)}"
        if max((row["attempt"] for row in story), default=0) > evidence.max_attempts:
            yield f"tried more often than {evidence.max_attempts} times:\n{evidence.story(execution)}"
        if execution["outcome"] == "lost" and execution["attempt"] < evidence.max_attempts:
            yield f"given up before its last attempt:\n{evidence.story(execution)}"
        if execution["lease_until_us"] is not None or execution["staged_state"] is not None:
            yield f"settled, with a lease or a staged state:\n{evidence.story(execution)}"
        for before, after in zip(story, story[1:]):
            claimed = after["became"] == "RUNNING"
            if claimed and (before["became"] != "SUBMITTED" or after["epoch"] != before["epoch"] + 1):
                yield f"claimed out of turn:\n{evidence.story(execution)}"


def one_at_a_time(evidence):
    """A stateful actor never had two running, and ran them in the order of acceptance."""
    story = sorted((row for rows in evidence.audit.values() for row in rows), key=lambda row: row["number"])
    running = collections.defaultdict(set)
    open_before = collections.defaultdict(set)
    for row in story:
        actor = evidence.actors.get(row["actor_id"])
        if not actor or not actor.stateful:
            continue
        opened, runs = open_before[actor.id], running[actor.id]
        if row["became"] == "RUNNING":
            if runs:
                yield f"{row['execution_id']} was claimed while {runs} ran: {row}"
            earlier = [sequence for sequence in opened if sequence < row["sequence"]]
            if earlier:
                yield f"{row['execution_id']} was claimed before earlier ones {earlier}: {row}"
            runs.add(row["execution_id"])
        else:
            runs.discard(row["execution_id"])
        if row["became"] in FINAL:
            opened.discard(row["sequence"])
        else:
            opened.add(row["sequence"])


def outcomes(evidence):
    """Whoever ended badly has a reason that the faults explain."""
    halted = {post.execution for post in evidence.load.posts if post.halted}
    for execution in evidence.executions.values():
        outcome = execution["outcome"]
        if outcome == "cancelled" and execution["id"] not in halted:
            yield f"cancelled, and nobody asked for it:\n{evidence.story(execution)}"
        if outcome in ("out_of_memory", "timed_out"):
            yield f"{outcome}:\n{evidence.story(execution)}"
        # 7 and 8: see effect.c. Its 9 is of an attempt that is superseded.
        if outcome == "failed" and execution["exit_code"] not in (7, 8):
            yield f"failed with {execution['exit_code']}:\n{evidence.story(execution)}"


def winners(evidence):
    """Logs are those of the claim that settled; every effect belongs to a claim."""
    for execution in evidence.executions.values():
        effects = evidence.collector.effects.get(execution["id"], [])
        runs = {effect.nonce: effect.epoch for effect in effects}
        if len(runs) > execution["epoch"] or len(set(runs.values())) != len(runs):
            yield f"{len(runs)} containers under {execution['epoch']} claims:\n{evidence.story(execution)}"
        if any(epoch is None or not 1 <= epoch <= execution["epoch"] for epoch in runs.values()):
            yield f"effects of no claim:\n{evidence.story(execution)}"
        log = evidence.log(execution)
        nonces = set(re.findall(r"nonce=(\w+)", log))
        winner = evidence.winner(execution)
        if execution["outcome"] == "succeeded":
            begins, ends = re.findall(r"^begin nonce=(\w+)", log, re.M), re.findall(r"^end nonce=(\w+)", log, re.M)
            if len(winner) != 1 or begins != list(winner) or ends != list(winner):
                yield f"the log is not that of the claim that settled it:\n{evidence.story(execution)}"
            elif f"worker={execution['worker_id']} " not in log:
                yield f"the log is of another worker than the row:\n{evidence.story(execution)}"
            told = [effect.what for effect in effects if effect.nonce in winner]
            if "begin" not in told or "end" not in told:
                yield f"succeeded, and its effects are missing:\n{evidence.story(execution)}"
        # A container that was killed before it told anybody may have a log.
        elif len(nonces) > 1 or any(nonce in runs and nonce not in winner for nonce in nonces):
            yield f"the log has another attempt's output:\n{evidence.story(execution)}"


def counters(evidence):
    """The state of a stateful actor has gone up by one with each that settled after its write."""
    for actor in evidence.actors.values():
        if not actor.stateful:
            continue
        status, answer = evidence.apis[0].request(actor.token, "GET", f"/actors/v2/{actor.id}/state", timeout=20)
        state = answer["result"]["state"] if status == 200 else None
        final = state.get("count", 0) if isinstance(state, dict) else None
        # What may be in the state: a write whose answer was lost may count or not.
        possible = {0}
        mine = sorted((e for e in evidence.executions.values() if e["actor_id"] == actor.id), key=lambda e: e["sequence"])
        for execution in mine:
            log = evidence.log(execution)
            written = re.search(r"state read=(\d+) writes=(\d+)", log)
            if not written:
                if execution["outcome"] == "succeeded":
                    yield f"succeeded without a state:\n{evidence.story(execution)}"
                continue
            read, wrote = map(int, written.groups())
            if read not in possible:
                yield f"{actor.name}: the state was {sorted(possible)}, and a container read {read}:\n{evidence.story(execution)}"
            # Settled by a sweep, it has no winner whose write would count; by its own claim, it counts.
            if execution["outcome"] == "lost":
                possible = {read}
            elif "state accepted" in log and execution["outcome"] != "cancelled":
                possible = {wrote}
            else:
                possible = {read, wrote}
        if final not in possible:
            succeeded = sum(e["outcome"] == "succeeded" for e in mine)
            yield f"{actor.name}: the state is {state}, it should count {sorted(possible)}; {succeeded} of {len(mine)} executions succeeded"


def database_rows(database):
    """Nothing is held by anybody."""
    for row in rows(database, "select id, status, host_id, lease_until_us from executions where status not in ('COMPLETE', 'ERROR')"):
        yield f"not settled: {row}"
    for row in rows(database, "select * from workers where status = 'BUSY'"):
        yield f"a worker of nothing is busy: {row}"


def goodbyes(database):
    """The last process of every host said that it has stopped."""
    sql = "select distinct on (name) name, id, draining, stopped_us from hosts order by name, registered_us desc"
    for row in rows(database, sql):
        if row["stopped_us"] is None:
            yield f"a worker has stopped, and its row does not say so: {row}"


def doctor(world):
    """The program itself finds nothing wrong."""
    try:
        world.apis[0].abax("admin", "doctor")
    except RuntimeError as error:
        yield str(error)


def leftovers(world, containers):
    """What is left of containers on the workers: none of it may be."""
    for group in control_groups(containers):
        yield f"the control group {group}"
    for worker in world.workers:
        with contextlib.suppress(FileNotFoundError):
            for entry in (worker.root / "containers").iterdir():
                yield f"{worker.name}: the directory of container {entry.name}"
        for bridge in (worker.root / "network").glob("*"):
            for lease in bridge.iterdir():
                if lease.is_symlink():
                    yield f"{worker.name}: the lease of {lease.name} on {bridge.name}"
        ports = json.loads(run(*entering(worker.name), "ip", "-j", "link", "show", "type", "veth"))
        for port in ports:
            if port.get("ifname") != "eth0":
                yield f"{worker.name}: the interface {port.get('ifname')}"
    roots = [str(worker.root / "containers") for worker in world.workers]
    ours = {pid for server in world.servers for pid in server.processes()}
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            mounts = pathlib.Path(f"/proc/{process}/mountinfo").read_text()
            if int(process) not in ours and any(root in mounts for root in roots):
                yield f"the process {process} ({pathlib.Path(f'/proc/{process}/comm').read_text().strip()}) in one of the containers"
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        if any(root in line for root in roots):
            yield f"the mount {line}"


def panics(world):
    """No process of the program ended by a bug."""
    for server in [*world.apis, *world.workers]:
        text = server.log_path.read_text(errors="replace")
        for panic in re.finditer(r"^thread '([^']*)'.* panicked at (?:.*\n){0,30}", text, re.M):
            # Where the process ends while lapin connects, lapin's thread has nothing to run it.
            if panic[1] != "lapin-io-loop" or "was cancelled" not in panic[0]:
                yield f"{server.name} panicked: {panic[0]}"


def namespaces():
    for name in pathlib.Path("/run/netns").glob(PREFIX + "*"):
        yield f"the network namespace {name.name}"
