-- What waits is what is SUBMITTED; from `visible_us` on it may run.
alter table executions add column visible_us bigint not null default 0;
update executions set visible_us = coalesce(
    (select q.visible_us from queue q where q.execution_id = executions.id), 0)
    where status = 'SUBMITTED';
update executions set queued_us = accepted_us where status = 'SUBMITTED' and queued_us is null;

drop index executions_unqueued;
drop index executions_open;
drop table queue;

create index executions_waiting on executions (actor_id, sequence) where status = 'SUBMITTED';

-- The context of the trace that the message belongs to (W3C traceparent).
alter table executions add column traceparent text;

-- What a running execution set as the actor's state; it counts with the end of
-- the execution.
alter table executions add column staged_state text;

-- For removing executions that ended long ago.
create index executions_ended on executions (stored_us) where status in ('COMPLETE', 'ERROR');

-- When hosts were last told by the sweep that the actor has work.
alter table actors add column activated_us bigint not null default 0;
-- Calls for hosts that found no room, to be repeated when there is some.
alter table actors add column activations_owed bigint not null default 0;

-- What a host offers beside slots: null is no limit. `classes` is JSON.
alter table hosts add column memory_bytes bigint;
alter table hosts add column milli_cpus bigint;
alter table hosts add column classes text not null default '["default"]';
alter table hosts add column cordoned boolean not null default false;
alter table hosts add column draining boolean not null default false;
alter table hosts add column stopped_us bigint;
alter table hosts add column clock_offset_us bigint;

-- Jobs that one process at a time does, and when each is due.
create table jobs (
    name text primary key,
    next_us bigint not null
);
