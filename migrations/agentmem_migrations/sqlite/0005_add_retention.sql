-- Retention. A purged entry keeps its row, without value, text and salt; who purged it stands here.

CREATE TABLE purges (
    id INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,        -- of the key; or that with all below it
    key TEXT,                       -- NULL: every key of the namespace and below it
    revision INTEGER NOT NULL,      -- what was written up to this one was erased
    purged_at INTEGER NOT NULL,
    agent TEXT,                     -- NULL: not told
    note TEXT,                      -- NULL: none
    finished INTEGER NOT NULL       -- 1: no byte is left in the files; 0: it has to be run again
);

-- operation_results.fingerprint is empty, not NULL, where it was erased.
