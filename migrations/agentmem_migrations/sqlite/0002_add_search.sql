-- Search. The vectors belong to the log; the text index `search_text` is derived from it, and is
-- made by agentmem.engines.sqlite.text, which knows what this SQLite can do.

-- Counts changes to vector_spaces, so that who knows them need not read them again.
ALTER TABLE store ADD COLUMN spaces INTEGER NOT NULL DEFAULT 0;

CREATE TABLE vector_sets (
    id INTEGER PRIMARY KEY,         -- from 1 on
    embedder TEXT NOT NULL,         -- what made the vectors; '': their writers did
    dimension INTEGER NOT NULL,
    UNIQUE (embedder, dimension)
);

-- Each top-level namespace has the vectors of one set; all that is below it shares them.
CREATE TABLE vector_spaces (
    namespace TEXT PRIMARY KEY,     -- encoded, one label; '' for the keys of the root
    set_id INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE vectors (
    id INTEGER PRIMARY KEY,         -- set_id * 2^40 + id of the entry: a set lies together, in order
    late INTEGER,                   -- the revision that added it; NULL: that of its entry
    vector BLOB NOT NULL,           -- float32, little-endian, as the embedder gave it
    checksum BLOB NOT NULL          -- blake2b-64(id, vector)
);

CREATE INDEX vectors_late ON vectors (late) WHERE late IS NOT NULL;

-- Entries whose text has yet to be embedded.
CREATE TABLE pending_vectors (
    entry_id INTEGER PRIMARY KEY
);

-- The published index of a set: a folder beside the database, see agentmem.search.indexer.
CREATE TABLE generations (
    set_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,             -- of the folder
    manifest TEXT NOT NULL,         -- digest of its files
    revision INTEGER NOT NULL,      -- its watermark: it holds what was current then
    hash BLOB NOT NULL,             -- of that revision
    last_entry_id INTEGER NOT NULL, -- of that revision
    live INTEGER NOT NULL,          -- rows that are alive in it
    dead INTEGER NOT NULL,          -- rows that were deleted since it was built anew
    built_at INTEGER NOT NULL
);
