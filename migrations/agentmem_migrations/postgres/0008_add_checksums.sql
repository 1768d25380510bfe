-- What no digest of the log covers has a checksum in its row, so that `verify` notices what was
-- changed behind agentmem's back. Made by the server where a row is inserted, and nowhere else.

CREATE FUNCTION checksum_of(record jsonb) RETURNS bytea LANGUAGE sql IMMUTABLE
    RETURN decode(md5((record - 'checksum')::text), 'hex');

CREATE FUNCTION add_checksum() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.checksum := decode(md5((to_jsonb(NEW) - 'checksum')::text), 'hex');
    RETURN NEW;
END $$;

-- Of the other columns; NULL: from before this migration, or changed since by agentmem.
ALTER TABLE operation_results ADD COLUMN checksum bytea;
ALTER TABLE reads ADD COLUMN checksum bytea;
ALTER TABLE conflicts ADD COLUMN checksum bytea;
ALTER TABLE tags ADD COLUMN checksum bytea;
ALTER TABLE merge_strategies ADD COLUMN checksum bytea;
ALTER TABLE purges ADD COLUMN checksum bytea;
ALTER TABLE vector_sets ADD COLUMN checksum bytea;
ALTER TABLE vector_spaces ADD COLUMN checksum bytea;

CREATE TRIGGER add_checksum BEFORE INSERT ON operation_results
    FOR EACH ROW EXECUTE FUNCTION add_checksum();
CREATE TRIGGER add_checksum BEFORE INSERT ON reads
    FOR EACH ROW EXECUTE FUNCTION add_checksum();
CREATE TRIGGER add_checksum BEFORE INSERT ON conflicts
    FOR EACH ROW EXECUTE FUNCTION add_checksum();
CREATE TRIGGER add_checksum BEFORE INSERT ON tags
    FOR EACH ROW EXECUTE FUNCTION add_checksum();
CREATE TRIGGER add_checksum BEFORE INSERT ON merge_strategies
    FOR EACH ROW EXECUTE FUNCTION add_checksum();
CREATE TRIGGER add_checksum BEFORE INSERT ON purges
    FOR EACH ROW EXECUTE FUNCTION add_checksum();
CREATE TRIGGER add_checksum BEFORE INSERT ON vector_sets
    FOR EACH ROW EXECUTE FUNCTION add_checksum();
CREATE TRIGGER add_checksum BEFORE INSERT ON vector_spaces
    FOR EACH ROW EXECUTE FUNCTION add_checksum();
