-- Attributes of actors.
alter table actors add column run_as_executor boolean not null default false;
alter table actors add column uid bigint;
alter table actors add column gid bigint;
-- The owner's home directory, which mounts may name.
alter table actors add column tasdir text;
alter table actors add column mounts text not null default '[]';
-- Seconds that an execution may run; null leaves it to the service.
alter table actors add column max_run_time bigint;
-- Counts the writes of the state, for writers that ask not to overwrite another's.
alter table actors add column state_version bigint not null default 0;
-- How many workers an admin asked for at least.
alter table actors add column wanted_workers bigint not null default 0;
alter table actors add column cron_schedule text;
alter table actors add column cron_on boolean not null default false;
-- From where its times are counted, and the next of them.
alter table actors add column cron_start_us bigint;
alter table actors add column cron_next_us bigint;
-- Where its image could not be had: how often in a row, and from when it is tried
-- again. Until then nothing of it is claimed.
alter table actors add column rests bigint not null default 0;
alter table actors add column rests_until_us bigint;

create index actors_by_cron on actors (cron_next_us) where cron_next_us is not null;
create index actors_by_tenant on actors (tenant, created_us);
create index actors_with_wanted_workers on actors (id) where wanted_workers > 0;
-- With all that is read of those that wait, which every host does every second:
-- an actor's row may have a third of a megabyte.
drop index actors_to_prepare;
create index actors_to_prepare on actors
    (created_us, id, revision, queue, tenant, owner, rests_until_us)
    where status = 'SUBMITTED';
create index actors_told_nothing on actors (updated_us, id, revision, queue)
    where status = 'SUBMITTED' and status_message = '';

-- What the image of a revision was when it was registered; every execution of
-- the revision runs that one.
create table revisions (
    actor_id text not null references actors (id) on delete cascade,
    revision bigint not null,
    image text not null,
    -- Digest of the image's manifest, null until a host has looked.
    digest text,
    -- Whether it was made on a host, so that no registry has it by its digest.
    made boolean not null default false,
    -- Whether the registry is asked for it although the host has one of its name.
    anew boolean not null default false,
    created_us bigint not null,
    primary key (actor_id, revision)
);

-- The user that an execution runs as, where the actor runs as its sender.
alter table executions add column executor_uid bigint;
alter table executions add column executor_gid bigint;

-- The body of a binary message, and the header that authenticated the sender.
alter table messages add column bytes blob;
alter table messages add column jwt_header text;

-- What an execution sent back. Those of a claim count while it is the last one.
create table results (
    execution_id text not null references executions (id) on delete cascade,
    number bigint not null,
    epoch bigint not null,
    bytes blob not null,
    created_us bigint not null,
    -- When a client that reads one by one took it.
    taken_us bigint,
    primary key (execution_id, number)
);

create index results_by_age on results (created_us);

-- Who may do what: `kind` is actor, alias or config; `object` is the actor's id,
-- or the name within the tenant. `position` is the order of the entries. The
-- owner's entry comes and goes with the object, by the triggers below.
create table permissions (
    tenant text not null,
    kind text not null,
    object text not null,
    user_name text not null,
    level text not null,
    position bigint not null,
    primary key (tenant, kind, object, user_name)
);

create index permissions_by_user on permissions (tenant, user_name, kind);
insert into permissions (tenant, kind, object, user_name, level, position)
    select tenant, 'actor', id, owner, 'UPDATE', 0 from actors;

create table aliases (
    tenant text not null,
    alias text not null,
    actor_id text not null references actors (id) on delete cascade,
    owner text not null,
    created_us bigint not null,
    primary key (tenant, alias)
);

create index aliases_by_actor on aliases (actor_id);

-- Of an actor or of an alias, never both.
create table nonces (
    id text primary key,
    tenant text not null,
    actor_id text references actors (id) on delete cascade,
    alias text,
    owner text not null,
    roles text not null,
    level text not null,
    description text not null,
    max_uses bigint not null,
    current_uses bigint not null default 0,
    remaining_uses bigint not null,
    created_us bigint not null,
    last_use_us bigint,
    foreign key (tenant, alias) references aliases (tenant, alias) on delete cascade
);

create index nonces_by_actor on nonces (actor_id, created_us) where actor_id is not null;
create index nonces_by_alias on nonces (tenant, alias, created_us) where alias is not null;

-- The value is plain text, or sealed under the key of that name.
create table configs (
    tenant text not null,
    name text not null,
    owner text not null,
    value text,
    sealed blob,
    key_name text,
    is_secret boolean not null,
    -- The actors and aliases as given, separated by commas.
    actors text not null,
    created_us bigint not null,
    updated_us bigint not null,
    primary key (tenant, name)
);

create index configs_sealed on configs (key_name) where key_name is not null;

-- Each of those, as an actor's id or as an alias.
create table config_actors (
    tenant text not null,
    config text not null,
    item text not null,
    primary key (tenant, config, item),
    foreign key (tenant, config) references configs (tenant, name) on delete cascade
);

create index config_actors_by_item on config_actors (tenant, item);

-- An owner may do everything with what is new, and what is gone leaves nothing
-- behind: neither permissions nor a name that configs would go to whoever takes it
-- next.
create trigger actors_are_owned after insert on actors begin
    insert into permissions (tenant, kind, object, user_name, level, position)
        values (new.tenant, 'actor', new.id, new.owner, 'UPDATE', 0);
end;
create trigger aliases_are_owned after insert on aliases begin
    insert into permissions (tenant, kind, object, user_name, level, position)
        values (new.tenant, 'alias', new.alias, new.owner, 'UPDATE', 0);
end;
create trigger configs_are_owned after insert on configs begin
    insert into permissions (tenant, kind, object, user_name, level, position)
        values (new.tenant, 'config', new.name, new.owner, 'UPDATE', 0);
end;
create trigger actors_are_gone after delete on actors begin
    delete from permissions
        where tenant = old.tenant and kind = 'actor' and object = old.id;
    delete from config_actors where tenant = old.tenant and item = old.id;
end;
create trigger aliases_are_gone after delete on aliases begin
    delete from permissions
        where tenant = old.tenant and kind = 'alias' and object = old.alias;
    delete from config_actors where tenant = old.tenant and item = old.alias;
end;
create trigger configs_are_gone after delete on configs begin
    delete from permissions
        where tenant = old.tenant and kind = 'config' and object = old.name;
end;

-- Events on their way to a linked actor or to a webhook.
create table deliveries (
    id text primary key,
    tenant text not null,
    actor_id text not null,
    event_type text not null,
    kind text not null,
    target text not null,
    payload text not null,
    created_us bigint not null,
    attempts bigint not null default 0,
    -- When it is tried next; null when it has ended.
    next_us bigint,
    delivered_us bigint,
    last_status bigint,
    last_error text
);

create index deliveries_due on deliveries (kind, next_us) where next_us is not null;
create index deliveries_by_actor on deliveries (actor_id, created_us);
create index deliveries_ended on deliveries (created_us) where next_us is null;

-- What the worker is for, once a host has it.
alter table workers add column image text;
alter table workers add column revision bigint;
create index workers_requested on workers (actor_id)
    where status in ('REQUESTED', 'PULLING IMAGE');
create index workers_by_host on workers (host_id);

-- Where the host is on the network, as it said.
alter table hosts add column address text;

-- Whether executions of it are gone, so that it counts as one that had some.
alter table actors add column had_executions boolean not null default false;

-- What is gone, by tenant: the statistics count it.
create table totals (
    tenant text primary key,
    actors bigint not null default 0,
    actors_with_executions bigint not null default 0,
    executions bigint not null default 0,
    runtime_us bigint not null default 0,
    cpu_ns bigint not null default 0,
    io_bytes bigint not null default 0
);
