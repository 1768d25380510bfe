-- What a commit was derived from, quick to find both ways.

ALTER TABLE reads
    -- counts what the commit had read, from 0 on
    ADD COLUMN position integer NOT NULL DEFAULT 0,
    -- a code of agentmem.provenance; 0: what the commit had read was not kept
    ADD COLUMN kind integer NOT NULL DEFAULT 1,
    -- of a scan or a search: the revision that it looked at; NULL: one key was read
    ADD COLUMN base_revision bigint;

UPDATE reads r SET kind = 5, base_revision = c.base_revision
FROM commits c WHERE c.revision = r.revision AND r.scan IS NOT NULL;

UPDATE reads r SET position = w.position
FROM (SELECT ctid, row_number() OVER (PARTITION BY revision ORDER BY ctid) - 1 AS position
    FROM reads) w
WHERE w.ctid = r.ctid;

ALTER TABLE reads
    ALTER COLUMN position DROP DEFAULT,
    ALTER COLUMN kind DROP DEFAULT,
    ADD PRIMARY KEY (revision, position);

CREATE INDEX reads_of_entry ON reads (namespace, key, version)
WHERE base_revision IS NULL AND kind <> 0;

CREATE INDEX reads_by_scan ON reads (namespace, base_revision, revision, position)
WHERE base_revision IS NOT NULL;

CREATE INDEX reads_unkept ON reads (revision) WHERE kind = 0;
