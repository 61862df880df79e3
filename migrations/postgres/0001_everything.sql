-- Times are microseconds since the epoch; JSON is text.

create table actors (
    id text primary key,
    tenant text not null,
    owner text not null,
    name text,
    description text not null,
    image text not null,
    stateless boolean not null,
    kind text not null,
    token boolean not null,
    token_chosen boolean not null,
    webhook text not null,
    link text not null,
    hints text not null,
    privileged boolean not null,
    max_workers bigint,
    mem_limit text,
    max_cpus bigint,
    use_container_uid boolean not null,
    default_environment text not null,
    status text not null,
    status_message text not null,
    state text not null,
    created_us bigint not null,
    updated_us bigint not null,
    revision bigint not null,
    queue text not null,
    log_ex bigint,
    -- When hosts were last told by the sweep that the actor has work.
    activated_us bigint not null default 0,
    -- Calls for hosts that found no room, to be repeated when there is some.
    activations_owed bigint not null default 0
);

create index actors_by_owner on actors (tenant, owner, created_us);
create index actors_to_prepare on actors (created_us) where status = 'SUBMITTED';
create index actors_to_remove on actors (id) where status = 'SHUTTING_DOWN';

-- `sequence` is the order of acceptance. `epoch` counts the claims: a write of
-- a claim holds only while its epoch is the row's.
create table executions (
    sequence bigint generated always as identity primary key,
    id text not null unique,
    actor_id text not null references actors (id) on delete cascade,
    executor text not null,
    status text not null,
    outcome text,
    reason text,
    attempt bigint not null default 0,
    epoch bigint not null default 0,
    actor_revision bigint not null,
    claimed_revision bigint,
    worker_id text,
    host_id text,
    lease_until_us bigint,
    halt_requested_us bigint,
    accepted_us bigint not null,
    queued_us bigint,
    claimed_us bigint,
    image_ready_us bigint,
    created_us bigint,
    started_us bigint,
    first_output_us bigint,
    exited_us bigint,
    stored_us bigint,
    exit_code bigint,
    final_state text,
    cpu_ns bigint not null default 0,
    io_bytes bigint not null default 0,
    runtime_us bigint not null default 0,
    peak_memory_bytes bigint,
    log_bytes bigint not null default 0,
    log_truncated boolean not null default false,
    log_expires_us bigint,
    -- What waits is what is SUBMITTED; from then on it may run.
    visible_us bigint not null default 0,
    -- The context of the trace that the message belongs to (W3C traceparent).
    traceparent text,
    -- What a running execution set as the actor's state; it counts with the end
    -- of the execution.
    staged_state text
);

create index executions_by_actor on executions (actor_id, sequence);
create index executions_running on executions (actor_id) where status = 'RUNNING';
create index executions_leased on executions (lease_until_us) where status = 'RUNNING';
create index executions_waiting on executions (actor_id, sequence) where status = 'SUBMITTED';
-- For removing executions that ended long ago.
create index executions_ended on executions (stored_us) where status in ('COMPLETE', 'ERROR');
create index executions_with_logs_to_expire on executions (log_expires_us)
    where log_expires_us is not null;

-- The input stays with the execution, so that it can be run again.
create table messages (
    execution_id text primary key references executions (id) on delete cascade,
    kind text not null,
    body text not null,
    content_type text not null,
    environment text not null
);

create table log_chunks (
    execution_id text not null references executions (id) on delete cascade,
    position bigint not null,
    bytes bytea not null,
    primary key (execution_id, position)
);

-- What a host offers: null is no limit. `classes` is JSON.
create table hosts (
    id text primary key,
    name text not null,
    version text not null,
    slots bigint not null,
    registered_us bigint not null,
    seen_us bigint not null,
    memory_bytes bigint,
    milli_cpus bigint,
    classes text not null default '["default"]',
    cordoned boolean not null default false,
    draining boolean not null default false,
    stopped_us bigint,
    clock_offset_us bigint
);

create table workers (
    id text primary key,
    actor_id text not null references actors (id) on delete cascade,
    host_id text not null,
    host_name text not null,
    status text not null,
    created_us bigint not null,
    last_execution_us bigint
);

create index workers_by_actor on workers (actor_id, host_id, status);

-- Jobs that one process at a time does, and when each is due.
create table jobs (
    name text primary key,
    next_us bigint not null
);
