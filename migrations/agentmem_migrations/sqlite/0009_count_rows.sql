-- How many rows there are beside the log, so that `verify` notices one that is missing.

-- Of what goes with a commit, the commit says it, under its hash: rows of `reads` that it was
-- written with, doubled, and one more for a row of `operation_results`. NULL: neither, or from
-- before this migration.
ALTER TABLE commits ADD COLUMN beside INTEGER;

-- Of the other tables it stands here, changed together with their rows; see
-- agentmem.engines.sqlite.tallies, which also fills it, and gives a checksum to each row that has
-- none. From then on none is NULL.
CREATE TABLE tallies (
    name TEXT PRIMARY KEY,          -- of a table
    row_count INTEGER NOT NULL,     -- its rows
    seal BLOB NOT NULL              -- of its rows with checksums, blake2b-64 of each, joined by XOR
) WITHOUT ROWID;
