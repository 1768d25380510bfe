-- Leases, queues and once: beside the log, without revisions, under the same lock. Numbers (tokens,
-- tickets in a line, ids of tasks) come from one counter of the store and are never given twice.
-- What runs out goes by the server's clock; `epoch`, which names the clock of a file, is
-- always ''. All else is microseconds since 1970-01-01 UTC.

-- One row for each batch that changed one of these tables; the newest thousand are kept.
CREATE TABLE marks (
    number bigint PRIMARY KEY,      -- the last number that the batch gave out
    attempt bytea NOT NULL          -- 16 random bytes that tell whether COMMIT took effect
);

-- The latest grant of each lease. A row goes when the lease is released or broken, not when it
-- expires.
CREATE TABLE leases (
    scope text COLLATE "C" NOT NULL, -- the scoped view that it belongs to; 'keys': of a key
    name text COLLATE "C" NOT NULL,
    token bigint NOT NULL,          -- larger than that of any grant before
    agent text,                     -- NULL: not told
    granted_at bigint NOT NULL,
    epoch text COLLATE "C" NOT NULL,
    expires_at bigint NOT NULL,     -- of the epoch's clock
    PRIMARY KEY (scope, name)
);

-- Who waits for a lease, in order of tickets.
CREATE TABLE lease_waiters (
    ticket bigint PRIMARY KEY,
    scope text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    agent text,                     -- NULL: not told
    since bigint NOT NULL,
    epoch text COLLATE "C" NOT NULL,
    until bigint NOT NULL           -- of the epoch's clock: passed over from then on
);

CREATE INDEX lease_waiters_name ON lease_waiters (scope, name, ticket);

-- Tasks that were put and are not yet acknowledged, and dead ones.
CREATE TABLE tasks (
    id bigint PRIMARY KEY,          -- in the order in which they were put
    scope text COLLATE "C" NOT NULL, -- the scoped view that the queue belongs to
    queue text COLLATE "C" NOT NULL,
    state bigint NOT NULL,          -- 0 waits, 1 waits from ready_at on, 2 behind its group, 3 dead
    priority bigint NOT NULL,       -- larger ones first
    task_group text COLLATE "C",    -- of its group only the oldest task can be had; NULL: none
    payload text NOT NULL,          -- JSON
    op_id text COLLATE "C",         -- the operation id of the put; NULL: none
    put_by text,                    -- an agent; NULL: not told
    put_at bigint NOT NULL,
    attempts bigint NOT NULL,       -- how often it was claimed
    max_attempts bigint NOT NULL,   -- dead after so many
    token bigint,                   -- of the claim that holds it; NULL: none does
    agent text,                     -- who claimed it last; NULL: nobody, or not told
    epoch text COLLATE "C",         -- NULL: ready_at is NULL
    ready_at bigint,                -- of the epoch's clock: when its delay or its claim ends
    due_at bigint,                  -- when its delay ends, for another epoch; NULL: at once
    note text                       -- why it was given back; NULL: nothing was said
);

CREATE INDEX tasks_waiting ON tasks (scope, queue, priority DESC, id) WHERE state = 0;
CREATE INDEX tasks_timed ON tasks (scope, queue, epoch, ready_at) WHERE state = 1;
CREATE INDEX tasks_group ON tasks (scope, queue, task_group, id)
    WHERE task_group IS NOT NULL AND state < 3;
CREATE INDEX tasks_dead ON tasks (scope, queue, id) WHERE state = 3;

-- Operation ids of puts. They outlive their tasks, so that a repeat puts nothing.
CREATE TABLE task_operations (
    scope text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    op_id text COLLATE "C" NOT NULL,
    task_id bigint NOT NULL,
    fingerprint bytea NOT NULL,     -- of the task, 16 bytes
    PRIMARY KEY (scope, queue, op_id)
);

-- What runs, or has run, under an id.
CREATE TABLE once_records (
    scope text COLLATE "C" NOT NULL, -- the scoped view that the id belongs to
    id text COLLATE "C" NOT NULL,
    token bigint NOT NULL,          -- of the latest run
    agent text,                     -- NULL: not told
    started_at bigint NOT NULL,
    epoch text COLLATE "C" NOT NULL,
    until bigint NOT NULL,          -- of the epoch's clock: who runs it counts as dead from then on
    result text,                    -- JSON; NULL: it runs, or died running
    expires_at bigint,              -- the result is forgotten from then on; NULL: never
    UNIQUE (scope, id)
);
