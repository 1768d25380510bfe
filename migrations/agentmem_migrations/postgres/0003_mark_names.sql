-- Which names occur in which part of the log, see agentmem.marks: what `log` narrows by.

-- What was committed before this migration has no marks, and is read commit by commit.
ALTER TABLE store ADD COLUMN marked_after bigint NOT NULL DEFAULT 0; -- revisions up to it have none
UPDATE store SET marked_after = revision;

CREATE TABLE log_marks (
    name text COLLATE "C" NOT NULL, -- of an agent, a namespace, a scope or a field, cut where it is long
    block bigint NOT NULL,          -- the revisions from block * 128 on; in one of them the name occurs
    PRIMARY KEY (name, block)
);
