-- How far each durable consumer of the feed has come. Who reads as a consumer holds a lease of the
-- scope 'feeds', whose name is the JSON list [scope, name].
CREATE TABLE cursors (
    scope text COLLATE "C" NOT NULL, -- the scoped view that the consumer belongs to
    name text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,       -- up to this one all is acknowledged; 0: nothing is
    hash bytea NOT NULL,            -- of that revision's commit; empty: of revision 0
    moved_at bigint NOT NULL,       -- microseconds since 1970-01-01 UTC
    PRIMARY KEY (scope, name)
);
