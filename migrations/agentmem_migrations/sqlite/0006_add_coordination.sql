-- Leases, queues and once: beside the log, without revisions, under the same lock. Numbers (tokens,
-- tickets in a line, ids of tasks) come from one counter of the store and are never given twice.
-- What runs out goes by a clock that is named by its `epoch` (on a file: one start of the machine);
-- a moment of another epoch has passed. All else is microseconds since 1970-01-01 UTC.

-- One row for each batch that changed one of these tables; the newest thousand are kept.
CREATE TABLE marks (
    number INTEGER PRIMARY KEY,     -- the last number that the batch gave out
    attempt BLOB NOT NULL           -- 16 random bytes that tell whether COMMIT took effect
);

-- The latest grant of each lease. A row goes when the lease is released or broken, not when it
-- expires.
CREATE TABLE leases (
    scope TEXT NOT NULL,            -- the scoped view that it belongs to; 'keys': of a key
    name TEXT NOT NULL,
    token INTEGER NOT NULL,         -- larger than that of any grant before
    agent TEXT,                     -- NULL: not told
    granted_at INTEGER NOT NULL,
    epoch TEXT NOT NULL,
    expires_at INTEGER NOT NULL,    -- of the epoch's clock
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;

-- Who waits for a lease, in order of tickets.
CREATE TABLE lease_waiters (
    ticket INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    agent TEXT,                     -- NULL: not told
    since INTEGER NOT NULL,
    epoch TEXT NOT NULL,
    until INTEGER NOT NULL          -- of the epoch's clock: passed over from then on
);

CREATE INDEX lease_waiters_name ON lease_waiters (scope, name, ticket);

-- Tasks that were put and are not yet acknowledged, and dead ones.
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,         -- in the order in which they were put
    scope TEXT NOT NULL,            -- the scoped view that the queue belongs to
    queue TEXT NOT NULL,
    state INTEGER NOT NULL,         -- 0 waits, 1 waits from ready_at on, 2 behind its group, 3 dead
    priority INTEGER NOT NULL,      -- larger ones first
    task_group TEXT,                -- of its group only the oldest task can be had; NULL: none
    payload TEXT NOT NULL,          -- JSON
    op_id TEXT,                     -- the operation id of the put; NULL: none
    put_by TEXT,                    -- an agent; NULL: not told
    put_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,      -- how often it was claimed
    max_attempts INTEGER NOT NULL,  -- dead after so many
    token INTEGER,                  -- of the claim that holds it; NULL: none does
    agent TEXT,                     -- who claimed it last; NULL: nobody, or not told
    epoch TEXT,                     -- NULL: ready_at is NULL
    ready_at INTEGER,               -- of the epoch's clock: when its delay or its claim ends
    due_at INTEGER,                 -- when its delay ends, for another epoch; NULL: at once
    note TEXT                       -- why it was given back; NULL: nothing was said
);

CREATE INDEX tasks_waiting ON tasks (scope, queue, priority DESC, id) WHERE state = 0;
CREATE INDEX tasks_timed ON tasks (scope, queue, epoch, ready_at) WHERE state = 1;
CREATE INDEX tasks_group ON tasks (scope, queue, task_group, id)
    WHERE task_group IS NOT NULL AND state < 3;
CREATE INDEX tasks_dead ON tasks (scope, queue, id) WHERE state = 3;

-- Operation ids of puts. They outlive their tasks, so that a repeat puts nothing.
CREATE TABLE task_operations (
    scope TEXT NOT NULL,
    queue TEXT NOT NULL,
    op_id TEXT NOT NULL,
    task_id INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,      -- of the task, 16 bytes
    PRIMARY KEY (scope, queue, op_id)
) WITHOUT ROWID;

-- What runs, or has run, under an id.
CREATE TABLE once_records (
    scope TEXT NOT NULL,            -- the scoped view that the id belongs to
    id TEXT NOT NULL,
    token INTEGER NOT NULL,         -- of the latest run
    agent TEXT,                     -- NULL: not told
    started_at INTEGER NOT NULL,
    epoch TEXT NOT NULL,
    until INTEGER NOT NULL,         -- of the epoch's clock: who runs it counts as dead from then on
    result TEXT,                    -- JSON; NULL: it runs, or died running
    expires_at INTEGER,             -- the result is forgotten from then on; NULL: never
    UNIQUE (scope, id)
);
