-- Search. The vectors belong to the log; `texts` is derived from it. The tables and columns are
-- those of the SQLite engine; what differs is said beside it.

-- As `english`, but without its stop words: a question may have no others.
CREATE TEXT SEARCH DICTIONARY stems (TEMPLATE = pg_catalog.snowball, Language = english);

CREATE TEXT SEARCH CONFIGURATION words (COPY = pg_catalog.english);

ALTER TEXT SEARCH CONFIGURATION words ALTER MAPPING REPLACE english_stem WITH stems;

-- What words find of the current entries; the SQLite engine has an FTS5 table for it.
CREATE TABLE texts (
    entry_id bigint PRIMARY KEY,
    namespace text COLLATE "C" NOT NULL, -- the entry's: most searches are below one
    words tsvector NOT NULL         -- of the first 256 KiB, by the configuration `words`
);

-- New words wait in a list, which makes a commit 0.3 ms shorter, until one has to sort them in: a
-- list of 4 MB, as it is by default, would hold that one up for more than 100 ms.
CREATE INDEX texts_words ON texts USING gin (words) WITH (gin_pending_list_limit = 256);

CREATE TABLE vector_sets (
    id integer PRIMARY KEY,         -- from 1 on
    embedder text COLLATE "C" NOT NULL, -- what made the vectors; '': their writers did
    dimension integer NOT NULL,
    UNIQUE (embedder, dimension)
);

-- Each top-level namespace has the vectors of one set; all that is below it shares them.
CREATE TABLE vector_spaces (
    namespace text COLLATE "C" PRIMARY KEY, -- encoded, one label; '' for the keys of the root
    set_id integer NOT NULL
);

CREATE TABLE vectors (
    id bigint PRIMARY KEY,          -- set_id * 2^40 + id of the entry: a set lies together, in order
    late bigint,                    -- the revision that added it; NULL: that of its entry
    vector bytea NOT NULL,          -- float32, little-endian, as the embedder gave it
    checksum bytea NOT NULL         -- blake2b-64(id, vector)
);

ALTER TABLE vectors ALTER COLUMN vector SET STORAGE EXTERNAL; -- floats do not compress

CREATE INDEX vectors_late ON vectors (late) WHERE late IS NOT NULL;

-- Entries whose text has yet to be embedded.
CREATE TABLE pending_vectors (
    entry_id bigint PRIMARY KEY
);

ALTER TABLE store
    ADD COLUMN spaces bigint NOT NULL DEFAULT 0, -- counts changes to vector_spaces, so that who
                                    -- knows them need not read them again
    ADD COLUMN texts bigint NOT NULL DEFAULT 0, -- the rows of `texts`: searches need their number,
                                    -- and counting them takes longer than a search
    ADD COLUMN nearest text;        -- JSON: the sets that have a table nearest_<id> for pgvector,
                                    -- with the extension's schema; NULL: none
