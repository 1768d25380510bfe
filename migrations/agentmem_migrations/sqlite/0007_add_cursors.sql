-- How far each durable consumer of the feed has come. Who reads as a consumer holds a lease of the
-- scope 'feeds', whose name is the JSON list [scope, name].
CREATE TABLE cursors (
    scope TEXT NOT NULL,            -- the scoped view that the consumer belongs to
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,      -- up to this one all is acknowledged; 0: nothing is
    hash BLOB NOT NULL,             -- of that revision's commit; empty: of revision 0
    moved_at INTEGER NOT NULL,      -- microseconds since 1970-01-01 UTC
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;
