-- What a commit was derived from, quick to find both ways. In order of commits, so that a commit
-- appends to the end of the table; by what was read, for what was derived from an entry.

CREATE TABLE new_reads (
    revision INTEGER NOT NULL,      -- the commit that had read this
    position INTEGER NOT NULL,      -- counts what it had read, from 0 on
    kind INTEGER NOT NULL,          -- a code of agentmem.provenance; 0: what it had read was not kept
    namespace TEXT NOT NULL,        -- of the key; of a scan or a search: the one that it looked into
    key TEXT NOT NULL,              -- '' for a scan or a search
    version INTEGER NOT NULL,       -- the version seen, 0: absent; of a scan: how many it found
    base_revision INTEGER,          -- of a scan or a search: the revision that it looked at; NULL: a key
    scan TEXT,                      -- JSON: what it asked for, and the entries found; NULL: a key
    PRIMARY KEY (revision, position)
) WITHOUT ROWID;

INSERT INTO new_reads
SELECT r.revision, row_number() OVER (PARTITION BY r.revision ORDER BY r.rowid) - 1,
    CASE WHEN r.scan IS NULL THEN 1 ELSE 5 END, r.namespace, r.key, r.version,
    CASE WHEN r.scan IS NULL THEN NULL ELSE c.base_revision END, r.scan
FROM reads r JOIN commits c ON c.revision = r.revision;

DROP TABLE reads;

ALTER TABLE new_reads RENAME TO reads;

CREATE INDEX reads_of_entry ON reads (namespace, key, version)
WHERE base_revision IS NULL AND kind <> 0;

CREATE INDEX reads_by_scan ON reads (namespace, base_revision) WHERE base_revision IS NOT NULL;

CREATE INDEX reads_unkept ON reads (revision) WHERE kind = 0;
