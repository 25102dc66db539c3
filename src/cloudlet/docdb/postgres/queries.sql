-- name: create_schema
-- An environment's tables: catalog, change log, and the place of what everybody must agree on.
CREATE SCHEMA IF NOT EXISTS {s};
CREATE TABLE IF NOT EXISTS {s}.state (
    one int PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    format int NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    base bigint NOT NULL,
    loading text
);
CREATE TABLE IF NOT EXISTS {s}.coll (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    preset text NOT NULL,
    rule text
);
CREATE TABLE IF NOT EXISTS {s}.idx (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    coll bigint NOT NULL REFERENCES {s}.coll (n),
    name text COLLATE "C" NOT NULL,
    parts text NOT NULL,
    options text NOT NULL,
    uniq boolean NOT NULL,
    multikey boolean NOT NULL DEFAULT false,
    lossy boolean NOT NULL DEFAULT false,
    ready boolean NOT NULL,
    UNIQUE (coll, name)
);
CREATE TABLE IF NOT EXISTS {s}.chg (
    seq bigint PRIMARY KEY,
    coll text COLLATE "C" NOT NULL,
    op text NOT NULL,
    rev bigint NOT NULL,
    before text,
    after text,
    at bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS chg_by_collection ON {s}.chg (coll, seq)

-- name: add_state
-- The one row of state: format, the sequence number before the first, and the copy that is being loaded.
INSERT INTO {s}.state (format, base, loading) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING

-- name: loading
-- The copy that is being loaded into the environment, if one is.
SELECT loading FROM {s}.state

-- name: loaded
-- The environment is complete.
UPDATE {s}.state SET loading = NULL, version = version + 1

-- name: load_collection
-- A row of the catalog with its number.
INSERT INTO {s}.coll (n, name, preset, rule) OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4)

-- name: load_index
-- A row of the catalog of indexes with its number.
INSERT INTO {s}.idx (n, coll, name, parts, options, uniq, multikey, lossy, ready) OVERRIDING SYSTEM VALUE
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, true)

-- name: continue_collections
-- New collections get numbers above this one.
SELECT setval(pg_get_serial_sequence('{s}.coll', 'n'), $1)

-- name: continue_indexes
-- New indexes get numbers above this one.
SELECT setval(pg_get_serial_sequence('{s}.idx', 'n'), $1)

-- name: last_document
-- How far the documents of a collection are loaded.
SELECT coalesce(max(did), 0) FROM {s}.c_{c}

-- name: last_entry
-- How far the entries of an index are loaded.
SELECT k, did FROM {s}.x_{x} ORDER BY k DESC, did DESC LIMIT 1

-- name: last_change
-- How far the change log is loaded.
SELECT coalesce(max(seq), 0) FROM {s}.chg

-- name: all_documents
-- Everything in order of insertion.
SELECT did, id_key, rev, body FROM {s}.c_{c} ORDER BY did

-- name: all_entries
-- Everything in the order of the index.
SELECT k, did FROM {s}.x_{x} ORDER BY k, did

-- name: all_changes
-- The whole change log.
SELECT seq, coll, op, before, after, at FROM {s}.chg ORDER BY seq

-- name: checksum
-- Number and checksum of the documents in a range of numbers.
SELECT count(*), coalesce(sum(('x' || left(md5(convert_to(encode(id_key, 'hex') || ':' || rev || ':' || body, 'UTF8')), 15))::bit(60)::bigint), 0)
FROM {s}.c_{c} WHERE did > $1 AND did <= $2

-- name: format
-- The format of an environment's tables.
SELECT format FROM {s}.state

-- name: drop_schema
-- Remove an environment for good.
DROP SCHEMA IF EXISTS {s} CASCADE

-- name: begin
-- A writing transaction, alone in its environment until it ends.
BEGIN; SELECT pg_advisory_xact_lock({lock})

-- name: position
-- Where the change log is.
SELECT greatest((SELECT max(seq) FROM {s}.chg), base) FROM {s}.state

-- name: begun
-- Where the change log and the catalog are, and what the transaction can be asked for by later.
SELECT greatest((SELECT max(seq) FROM {s}.chg), base), version, pg_current_xact_id()::text FROM {s}.state

-- name: outcome
-- What became of a transaction.
SELECT pg_xact_status($1::text::xid8)

-- name: next_version
-- Tell everybody that the catalog is another one.
UPDATE {s}.state SET version = version + 1

-- name: version
-- The version of the catalog.
SELECT version FROM {s}.state

-- name: create_collection_table
-- Documents of one collection in order of insertion.
CREATE TABLE {s}.c_{c} (did bigint PRIMARY KEY, id_key bytea NOT NULL UNIQUE, rev bigint NOT NULL, body text NOT NULL)
WITH (fillfactor = 85)

-- name: drop_collection_table
-- Remove all documents of a collection.
DROP TABLE {s}.c_{c}

-- name: create_index_table
-- Entries of an index: key, then document.
CREATE TABLE {s}.x_{x} (k bytea NOT NULL, did bigint NOT NULL, PRIMARY KEY (k, did))

-- name: create_unique_table
-- Entries of a unique index: a key belongs to one document.
CREATE TABLE {s}.x_{x} (k bytea NOT NULL PRIMARY KEY, did bigint NOT NULL)

-- name: drop_index_table
-- Remove all entries of an index.
DROP TABLE {s}.x_{x}

-- name: add_collection
-- A new row of the catalog.
INSERT INTO {s}.coll (name, preset) VALUES ($1, $2) RETURNING n

-- name: remove_collection
-- Forget a collection.
DELETE FROM {s}.coll WHERE n = $1

-- name: set_preset
-- Change who may do what.
UPDATE {s}.coll SET preset = $1 WHERE n = $2

-- name: set_rule
-- Change the custom rule.
UPDATE {s}.coll SET rule = $1 WHERE n = $2

-- name: add_index
-- A new row of the catalog of indexes.
INSERT INTO {s}.idx (coll, name, parts, options, uniq, ready) VALUES ($1, $2, $3, $4, $5, $6) RETURNING n

-- name: remove_index
-- Forget an index.
DELETE FROM {s}.idx WHERE n = $1

-- name: remove_indexes_of
-- Forget all indexes of a collection.
DELETE FROM {s}.idx WHERE coll = $1

-- name: publish_index
-- From now on the index may be read.
UPDATE {s}.idx SET ready = true WHERE n = $1

-- name: set_index_flags
-- An index has met an array or a key that hides a difference.
UPDATE {s}.idx SET multikey = multikey OR $1, lossy = lossy OR $2 WHERE n = $3

-- name: withdraw_index
-- An automatic index lacks a document and must not be read any more.
UPDATE {s}.idx SET ready = false WHERE n = $1

-- name: hold_index
-- Show other processes that an index is being filled, until this connection ends.
SELECT pg_try_advisory_lock({lock} # $1::bigint)

-- name: release_index
-- The index is filled, or given up.
SELECT pg_advisory_unlock({lock} # $1::bigint)

-- name: collections
-- The catalog of collections.
SELECT n, name, preset, rule FROM {s}.coll ORDER BY n

-- name: indexes
-- The catalog of indexes.
SELECT n, coll, name, parts, options, uniq, multikey, lossy, ready FROM {s}.idx ORDER BY n

-- name: get
-- One document by its id key.
SELECT did, id_key, rev, body FROM {s}.c_{c} WHERE id_key = $1

-- name: get_many
-- Documents by their id keys, in no order.
SELECT did, id_key, rev, body FROM {s}.c_{c} WHERE id_key = ANY($1::bytea[])

-- name: scan_after
-- The next documents in order of insertion.
SELECT did, id_key, rev, body FROM {s}.c_{c} WHERE did > $1 ORDER BY did LIMIT $2

-- name: ids
-- Documents by their id keys in order, up to a number and (about) a size.
SELECT did, id_key, rev, body FROM (
    SELECT did, id_key, rev, body,
        sum(octet_length(body)) OVER (ORDER BY id_key ROWS UNBOUNDED PRECEDING) - octet_length(body) AS above
    FROM {s}.c_{c} WHERE id_key = ANY($1::bytea[]) ORDER BY id_key LIMIT $2
) AS q WHERE above <= $3

-- name: scan
-- Documents in order of insertion, up to a number and (about) a size.
SELECT did, id_key, rev, body FROM (
    SELECT did, id_key, rev, body,
        sum(octet_length(body)) OVER (ORDER BY did ROWS UNBOUNDED PRECEDING) - octet_length(body) AS above
    FROM {s}.c_{c} ORDER BY did LIMIT $1
) AS q WHERE above <= $2

-- name: id_range
-- Documents by id, up to a number and (about) a size.
SELECT did, id_key, rev, body FROM (
    SELECT did, id_key, rev, body,
        sum(octet_length(body)) OVER (ORDER BY id_key {d} ROWS UNBOUNDED PRECEDING) - octet_length(body) AS above
    FROM {s}.c_{c} WHERE id_key >= $1 AND id_key < $2 AND (SELECT version FROM {s}.state) = $5
    ORDER BY id_key {d} LIMIT $3
) AS q WHERE above <= $4

-- name: index_range
-- Documents by an index, up to a number and (about) a size; nothing if the catalog is another one.
SELECT did, id_key, rev, body FROM (
    SELECT c.did, c.id_key, c.rev, c.body,
        sum(octet_length(c.body)) OVER (ORDER BY x.k {d}, x.did {d} ROWS UNBOUNDED PRECEDING)
            - octet_length(c.body) AS above
    FROM {s}.x_{x} AS x JOIN {s}.c_{c} AS c ON c.did = x.did
    WHERE x.k >= $1 AND x.k < $2 AND (SELECT version FROM {s}.state) = $5
    ORDER BY x.k {d}, x.did {d} LIMIT $3
) AS q WHERE above <= $4

-- name: id_ranges
-- Documents by several ranges of ids. The ranges do not overlap and are given in order.
SELECT q.did, q.id_key, q.rev, q.body FROM (
    SELECT c.did, c.id_key, c.rev, c.body, sum(octet_length(c.body)) OVER (ROWS UNBOUNDED PRECEDING) - octet_length(c.body) AS above
    FROM unnest($1::bytea[], $2::bytea[]) AS r (low, high) CROSS JOIN LATERAL (
        SELECT did, id_key, rev, body FROM {s}.c_{c} WHERE id_key >= r.low AND id_key < r.high ORDER BY id_key {d} LIMIT $3
    ) AS c WHERE (SELECT version FROM {s}.state) = $5 LIMIT $3
) AS q WHERE above <= $4

-- name: index_ranges
-- Documents by several ranges of an index. The ranges do not overlap and are given in order.
SELECT q.did, q.id_key, q.rev, q.body FROM (
    SELECT c.did, c.id_key, c.rev, c.body, sum(octet_length(c.body)) OVER (ROWS UNBOUNDED PRECEDING) - octet_length(c.body) AS above
    FROM unnest($1::bytea[], $2::bytea[]) AS r (low, high) CROSS JOIN LATERAL (
        SELECT d.did, d.id_key, d.rev, d.body FROM {s}.x_{x} AS x JOIN {s}.c_{c} AS d ON d.did = x.did
        WHERE x.k >= r.low AND x.k < r.high ORDER BY x.k {d}, x.did {d} LIMIT $3
    ) AS c WHERE (SELECT version FROM {s}.state) = $5 LIMIT $3
) AS q WHERE above <= $4

-- name: count_ids
-- How many of these ids exist.
SELECT count(*) FROM {s}.c_{c} WHERE id_key = ANY($1::bytea[])

-- name: count_id_ranges
-- How many documents have an id in ranges, counted up to a limit, and the version of the catalog.
SELECT count(*), (SELECT version FROM {s}.state) FROM (
    SELECT FROM unnest($1::bytea[], $2::bytea[]) AS r (low, high) CROSS JOIN LATERAL (
        SELECT FROM {s}.c_{c} WHERE id_key >= r.low AND id_key < r.high LIMIT $3
    ) AS e LIMIT $3
) AS q

-- name: count_index_ranges
-- How many entries an index has in ranges, counted up to a limit, and the version of the catalog.
SELECT count(*), (SELECT version FROM {s}.state) FROM (
    SELECT FROM unnest($1::bytea[], $2::bytea[]) AS r (low, high) CROSS JOIN LATERAL (
        SELECT FROM {s}.x_{x} WHERE k >= r.low AND k < r.high LIMIT $3
    ) AS e LIMIT $3
) AS q

-- name: insert_documents
-- New documents.
INSERT INTO {s}.c_{c} (did, id_key, rev, body)
SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::text[])

-- name: update_documents
-- New bodies.
UPDATE {s}.c_{c} AS c SET rev = u.rev, body = u.body
FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS u (did, rev, body) WHERE c.did = u.did

-- name: delete_documents
-- Remove documents.
DELETE FROM {s}.c_{c} WHERE did = ANY($1::bigint[])

-- name: add_entries
-- Keys of documents. While an index is being filled they may be there already.
INSERT INTO {s}.x_{x} (k, did) SELECT * FROM unnest($1::bytea[], $2::bigint[]) ON CONFLICT DO NOTHING

-- name: remove_entries
-- Keys that documents no longer have.
DELETE FROM {s}.x_{x} AS x USING unnest($1::bytea[], $2::bigint[]) AS u (k, did) WHERE x.k = u.k AND x.did = u.did

-- name: owners
-- To which documents the keys of a unique index belong.
SELECT k, did FROM {s}.x_{x} WHERE k = ANY($1::bytea[])

-- name: log
-- Rows of the change log.
INSERT INTO {s}.chg (seq, coll, op, rev, before, after, at)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[])

-- name: changes
-- Changes after a sequence number.
SELECT seq, coll, op, rev, before, after, at FROM {s}.chg WHERE seq > $1 ORDER BY seq LIMIT $2

-- name: changes_of
-- Changes of one collection after a sequence number.
SELECT seq, coll, op, rev, before, after, at FROM {s}.chg WHERE coll = $3 AND seq > $1 ORDER BY seq LIMIT $2

-- name: first_seq
-- The oldest change that is kept.
SELECT coalesce((SELECT min(seq) FROM {s}.chg), base + 1) FROM {s}.state

-- name: prune_changes
-- Forget changes up to a sequence number.
DELETE FROM {s}.chg WHERE seq <= $1

-- name: count_documents
-- How many documents a collection has, counted up to a limit.
SELECT count(*) FROM (SELECT FROM {s}.c_{c} LIMIT $1) AS q

-- name: document_sizes
-- How many documents a collection has, and how many bytes their bodies.
SELECT count(*), coalesce(sum(octet_length(body)), 0) FROM {s}.c_{c}

-- name: count_entries
-- How many entries an index has.
SELECT count(*) FROM {s}.x_{x}

-- name: notify
-- Wake the other processes of the installation.
SELECT pg_notify('cloudlet_documents', $1)
