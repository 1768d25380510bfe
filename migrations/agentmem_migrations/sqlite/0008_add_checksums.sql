-- What no digest of the log covers has a checksum in its row, so that `verify` notices what was
-- changed behind agentmem's back: blake2b-64 of the other columns, see
-- agentmem.engines.sqlite.checksums. NULL: from before this migration, or changed since by agentmem.

ALTER TABLE operation_results ADD COLUMN checksum BLOB;
ALTER TABLE reads ADD COLUMN checksum BLOB;
ALTER TABLE conflicts ADD COLUMN checksum BLOB;
ALTER TABLE tags ADD COLUMN checksum BLOB;
ALTER TABLE merge_strategies ADD COLUMN checksum BLOB;
ALTER TABLE purges ADD COLUMN checksum BLOB;
ALTER TABLE vector_sets ADD COLUMN checksum BLOB;
ALTER TABLE vector_spaces ADD COLUMN checksum BLOB;
