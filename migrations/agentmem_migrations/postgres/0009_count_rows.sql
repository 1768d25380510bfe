-- How many rows there are beside the log, so that `verify` notices one that is missing.

-- Of what goes with a commit, the commit says it, under its hash: rows of `reads` that it was
-- written with, doubled, and one more for a row of `operation_results`. NULL: neither, or from
-- before this migration.
ALTER TABLE commits ADD COLUMN beside integer;

-- Of the other tables it stands here, changed by the statements that change their rows.
CREATE TABLE tallies (
    name text COLLATE "C" PRIMARY KEY, -- of a table
    row_count bigint NOT NULL,      -- its rows
    seal bigint NOT NULL            -- of its rows with checksums, `seal_of` each, joined by XOR
);

CREATE FUNCTION seal_of(checksum bytea) RETURNS bigint LANGUAGE sql IMMUTABLE
    RETURN ('x' || left(encode(checksum, 'hex'), 16))::bit(64)::bigint;

-- A row that agentmem itself changes gets another checksum by the statement that changes it; from
-- here on none is NULL.
UPDATE operation_results t SET checksum = checksum_of(to_jsonb(t)) WHERE checksum IS NULL;
UPDATE reads t SET checksum = checksum_of(to_jsonb(t)) WHERE checksum IS NULL;
UPDATE conflicts t SET checksum = checksum_of(to_jsonb(t)) WHERE checksum IS NULL;
UPDATE tags t SET checksum = checksum_of(to_jsonb(t)) WHERE checksum IS NULL;
UPDATE merge_strategies t SET checksum = checksum_of(to_jsonb(t)) WHERE checksum IS NULL;
UPDATE purges t SET checksum = checksum_of(to_jsonb(t)) WHERE checksum IS NULL;
UPDATE vector_sets t SET checksum = checksum_of(to_jsonb(t)) WHERE checksum IS NULL;
UPDATE vector_spaces t SET checksum = checksum_of(to_jsonb(t)) WHERE checksum IS NULL;

INSERT INTO tallies
SELECT 'conflicts', COUNT(*), COALESCE(bit_xor(seal_of(checksum)), 0) FROM conflicts
UNION ALL SELECT 'tags', COUNT(*), COALESCE(bit_xor(seal_of(checksum)), 0) FROM tags
UNION ALL SELECT 'merge_strategies', COUNT(*), COALESCE(bit_xor(seal_of(checksum)), 0)
    FROM merge_strategies
UNION ALL SELECT 'purges', COUNT(*), COALESCE(bit_xor(seal_of(checksum)), 0) FROM purges
UNION ALL SELECT 'vector_sets', COUNT(*), COALESCE(bit_xor(seal_of(checksum)), 0) FROM vector_sets
UNION ALL SELECT 'vector_spaces', COUNT(*), COALESCE(bit_xor(seal_of(checksum)), 0)
    FROM vector_spaces
UNION ALL SELECT 'vectors', COUNT(*), 0 FROM vectors
UNION ALL SELECT 'pending_vectors', COUNT(*), 0 FROM pending_vectors
UNION ALL SELECT 'tasks', COUNT(*), 0 FROM tasks
UNION ALL SELECT 'task_operations', COUNT(*), 0 FROM task_operations
UNION ALL SELECT 'once_records', COUNT(*), 0 FROM once_records
UNION ALL SELECT 'cursors', COUNT(*), 0 FROM cursors;
