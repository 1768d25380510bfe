-- The log: commits and their entries are the truth; heads are derived from them.
-- Times are microseconds since 1970-01-01 UTC. Namespaces are encoded: each label, escaped,
-- and ended by U+0001. Values are canonical JSON text.

CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    store_id TEXT NOT NULL,         -- random, made with the store, never changes
    created_at INTEGER NOT NULL,
    floor INTEGER NOT NULL,         -- the lowest revision that can be read; 0: all
    fence INTEGER NOT NULL          -- counts empty writes that settle an indeterminate COMMIT
);

CREATE TABLE commits (
    revision INTEGER PRIMARY KEY,   -- +1 a commit; rows are never deleted, so none is given twice
    committed_at INTEGER NOT NULL,  -- never smaller than that of the revision before
    scope TEXT NOT NULL,            -- the scoped view that committed; '' for the store itself
    op_id TEXT,                     -- the caller's operation id; NULL: none
    agent TEXT,                     -- NULL: not told
    note TEXT,                      -- NULL: none
    metadata TEXT,                  -- JSON object; NULL: none
    base_revision INTEGER NOT NULL, -- what the transaction read
    attempt BLOB NOT NULL,          -- 16 random bytes that tell this attempt from any other
    first_entry_id INTEGER NOT NULL,-- its entries have the ids from here on
    changes INTEGER NOT NULL,       -- how many entries it has
    accepted TEXT,                  -- JSON: what a repair judged to be still right; NULL: nothing
    digests BLOB NOT NULL,          -- the digests of its entries, 32 bytes each, in order of ids
    hash BLOB NOT NULL              -- blake2b-256(hash of the revision before, these fields)
);

CREATE UNIQUE INDEX commits_operation ON commits (scope, op_id) WHERE op_id IS NOT NULL;

CREATE TABLE operation_results (
    revision INTEGER PRIMARY KEY,   -- the commit of the operation
    fingerprint BLOB,               -- of the request, 16 bytes; NULL: any request is the same
    result TEXT                     -- JSON that the function of transact returned; NULL: none
);

CREATE TABLE entries (
    id INTEGER PRIMARY KEY,         -- in order of revisions, then of (namespace, key)
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    revision INTEGER NOT NULL,      -- the commit that wrote it
    version INTEGER NOT NULL,       -- 1 for the key's first entry, then +1, tombstones counted
    operation INTEGER NOT NULL,     -- 1 put, 2 delete, 3 increment, 4 append, 5 add_to_set, 6 patch
    base_version INTEGER,           -- the version the writer started from, 0: absent; NULL: blind
    merged TEXT,                    -- the strategy or hook that merged it; NULL: not merged
    value TEXT,                     -- JSON; NULL: tombstone
    text TEXT,                      -- what search sees; NULL: follows from value; '': hidden
    ttl_us INTEGER,                 -- time to live as it was written; NULL: for ever
    expires_at INTEGER,             -- absent from then on, moved by touch; NULL: never
    created_at INTEGER NOT NULL,    -- commit time of the version that made the key present
    salt BLOB,                      -- 16 random bytes; NULL: purged
    digest BLOB NOT NULL,           -- blake2b-256(salt, all that is written once of the above)
    UNIQUE (namespace, key, revision)
);

-- What expired since a transaction began makes its scans stale; touch can move it there.
CREATE INDEX entries_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE heads (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    entry_id INTEGER NOT NULL,      -- the newest entry of the key, tombstones included
    version INTEGER NOT NULL,       -- its version; kept when the entry is compacted
    revision INTEGER NOT NULL,      -- its revision
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID;

CREATE TABLE reads (
    revision INTEGER NOT NULL,      -- the commit that had read this
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,              -- '' for a scan
    version INTEGER NOT NULL,       -- the version seen, 0: absent; for a scan the entries found
    scan TEXT                       -- JSON: what a scan asked for; NULL: one key
);

CREATE TABLE conflicts (
    id INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    status TEXT NOT NULL,           -- merged, retried, rejected, repaired, open, resolved
    kind TEXT NOT NULL,             -- write, read, scan
    strategy TEXT,                  -- what merged it; NULL: nothing
    base_version INTEGER NOT NULL,  -- the version the writer started from, 0: absent
    theirs_version INTEGER NOT NULL,-- the version that it met, 0: absent
    ours TEXT,                      -- JSON: what the writer wanted, if merged; NULL: a delete, or not kept
    agent TEXT,                     -- the writer; NULL: not told
    op_id TEXT,                     -- the writer's operation id; NULL: none
    revision INTEGER,               -- the commit that ended it; NULL: none did
    detected_at INTEGER NOT NULL,
    note TEXT                       -- how a person resolved it; NULL: nothing was said
);

CREATE INDEX conflicts_open ON conflicts (id) WHERE status = 'open';

CREATE TABLE tags (
    scope TEXT NOT NULL,            -- the scoped view that set it; '' for the store itself
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    agent TEXT,                     -- NULL: not told
    note TEXT,                      -- NULL: none
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;

CREATE TABLE merge_strategies (
    position INTEGER PRIMARY KEY,   -- order of registration
    pattern TEXT NOT NULL UNIQUE,   -- JSON list of its parts
    spec TEXT NOT NULL              -- JSON: the name of a built-in strategy, or one with its fields
);
