-- name: create_collection_table
-- Documents of one collection in order of insertion.
CREATE TABLE c_{c} (did INTEGER PRIMARY KEY, id_key BLOB NOT NULL UNIQUE, rev INTEGER NOT NULL, body BLOB NOT NULL)

-- name: drop_collection_table
-- Remove all documents of a collection.
DROP TABLE c_{c}

-- name: create_index_table
-- Entries of an index: key, then document.
CREATE TABLE x_{x} (k BLOB NOT NULL, did INTEGER NOT NULL, PRIMARY KEY (k, did)) WITHOUT ROWID

-- name: create_unique_table
-- Entries of a unique index: a key belongs to one document.
CREATE TABLE x_{x} (k BLOB NOT NULL PRIMARY KEY, did INTEGER NOT NULL) WITHOUT ROWID

-- name: drop_index_table
-- Remove all entries of an index.
DROP TABLE x_{x}

-- name: add_collection
-- A new row of the catalog.
INSERT INTO coll (name, preset) VALUES (?, ?)

-- name: remove_collection
-- Forget a collection.
DELETE FROM coll WHERE n = ?

-- name: set_preset
-- Change who may do what.
UPDATE coll SET preset = ? WHERE n = ?

-- name: set_rule
-- Set or take away the custom rule.
UPDATE coll SET rule = ? WHERE n = ?

-- name: add_index
-- A new row of the catalog of indexes.
INSERT INTO idx (coll, name, parts, uniq, ready, options) VALUES (?, ?, ?, ?, ?, ?)

-- name: remove_index
-- Forget an index.
DELETE FROM idx WHERE n = ?

-- name: remove_indexes_of
-- Forget all indexes of a collection.
DELETE FROM idx WHERE coll = ?

-- name: publish_index
-- From now on the index may be read.
UPDATE idx SET ready = 1 WHERE n = ?

-- name: withdraw_index
-- From now on the index must not be read.
UPDATE idx SET ready = 0 WHERE n = ?

-- name: set_index_flags
-- An index has met an array or a key that hides a difference.
UPDATE idx SET multikey = ?, lossy = ? WHERE n = ?

-- name: collections
-- The catalog of collections.
SELECT n, name, preset, rule FROM coll ORDER BY n

-- name: indexes
-- The catalog of indexes.
SELECT n, coll, name, parts, uniq, multikey, lossy, ready, options FROM idx ORDER BY n

-- name: get
-- One document by its id key.
SELECT did, id_key, rev, json(body) FROM c_{c} WHERE id_key = ?

-- name: get_rev
-- The revision of one document.
SELECT rev FROM c_{c} WHERE id_key = ?

-- name: scan
-- All documents in order of insertion.
SELECT did, id_key, rev, json(body) FROM c_{c} ORDER BY did

-- name: scan_where
-- Documents that meet a condition (of parameters only, see sqlite_prefilter), in order of insertion.
SELECT did, id_key, rev, json(body) FROM c_{c} WHERE {condition} ORDER BY did

-- name: scan_after
-- The next documents in order of insertion.
SELECT did, id_key, rev, json(body) FROM c_{c} WHERE did > ? ORDER BY did LIMIT ?

-- name: id_range
-- Documents by id.
SELECT did, id_key, rev, json(body) FROM c_{c} WHERE id_key >= ? AND id_key < ? ORDER BY id_key

-- name: id_range_reverse
-- Documents by id, backwards.
SELECT did, id_key, rev, json(body) FROM c_{c} WHERE id_key >= ? AND id_key < ? ORDER BY id_key DESC

-- name: index_range
-- Documents by an index.
SELECT c.did, c.id_key, c.rev, json(c.body) FROM x_{x} AS x CROSS JOIN c_{c} AS c ON c.did = x.did
WHERE x.k >= ? AND x.k < ? ORDER BY x.k, x.did

-- name: index_range_reverse
-- Documents by an index, backwards.
SELECT c.did, c.id_key, c.rev, json(c.body) FROM x_{x} AS x CROSS JOIN c_{c} AS c ON c.did = x.did
WHERE x.k >= ? AND x.k < ? ORDER BY x.k DESC, x.did DESC

-- name: unique_range
-- Documents by a unique index.
SELECT c.did, c.id_key, c.rev, json(c.body) FROM x_{x} AS x CROSS JOIN c_{c} AS c ON c.did = x.did
WHERE x.k >= ? AND x.k < ? ORDER BY x.k

-- name: unique_range_reverse
-- Documents by a unique index, backwards.
SELECT c.did, c.id_key, c.rev, json(c.body) FROM x_{x} AS x CROSS JOIN c_{c} AS c ON c.did = x.did
WHERE x.k >= ? AND x.k < ? ORDER BY x.k DESC

-- name: insert_document
-- A new document.
INSERT INTO c_{c} (id_key, rev, body) VALUES (?, ?, jsonb(?))

-- name: log_insert
-- The change-log row of the document just inserted.
INSERT INTO chg (seq, coll, op, id, after, at) SELECT rev, ?, 'insert', id_key, body, ? FROM c_{c} WHERE did = ?

-- name: log_update
-- The change-log row of an update, written before it: the old body is still there, the new one is taken from here.
INSERT INTO chg (seq, coll, op, id, before, after, at)
SELECT ?, ?, 'update', id_key, body, jsonb(?), ? FROM c_{c} WHERE did = ? AND rev = ?

-- name: update_document
-- Put the new body, which the change log already holds, in place.
UPDATE c_{c} SET rev = ?1, body = (SELECT after FROM chg WHERE seq = ?1) WHERE did = ?2

-- name: log_delete
-- The change-log row of a removal, written before it.
INSERT INTO chg (seq, coll, op, id, before, at)
SELECT ?, ?, 'delete', id_key, body, ? FROM c_{c} WHERE did = ? AND rev = ?

-- name: delete_document
-- Remove a document.
DELETE FROM c_{c} WHERE did = ?

-- name: add_entry
-- One key of one document.
INSERT INTO x_{x} (k, did) VALUES (?, ?)

-- name: add_entry_again
-- The same while an index is being filled: the entry may be there already.
INSERT INTO x_{x} (k, did) VALUES (?, ?) ON CONFLICT DO NOTHING

-- name: remove_entry
-- One key of one document.
DELETE FROM x_{x} WHERE k = ? AND did = ?

-- name: entry_owner
-- To which document a key of a unique index belongs.
SELECT did FROM x_{x} WHERE k = ?

-- name: changes
-- Changes after a sequence number.
SELECT seq, coll, op, json(before), json(after), at FROM chg WHERE seq > ? ORDER BY seq LIMIT ?

-- name: changes_of
-- Changes of one collection after a sequence number.
SELECT seq, coll, op, json(before), json(after), at FROM chg WHERE coll = ? AND seq > ? ORDER BY seq LIMIT ?

-- name: last_seq
-- The newest change.
SELECT coalesce(max(seq), 0) FROM chg

-- name: first_seq
-- The oldest change that is still known.
SELECT coalesce(min(seq), 0) FROM chg

-- name: prune_changes
-- Forget changes up to a sequence number.
DELETE FROM chg WHERE seq <= ?

-- name: count_documents
-- How many documents a collection has.
SELECT count(*) FROM c_{c}

-- name: count_entries
-- How many entries an index has.
SELECT count(*) FROM x_{x}

-- name: probe_entries
-- How many entries an index has in a range, counted up to a limit.
SELECT count(*) FROM (SELECT 1 FROM x_{x} WHERE k >= ? AND k < ? LIMIT ?)

-- name: probe_ids
-- How many documents have an id in a range, counted up to a limit.
SELECT count(*) FROM (SELECT 1 FROM c_{c} WHERE id_key >= ? AND id_key < ? LIMIT ?)

-- name: measure_documents
-- Number and size of the documents of a collection.
SELECT count(*), coalesce(sum(octet_length(json(body))), 0) FROM c_{c}

-- name: newest_document
-- About how many documents a collection has had.
SELECT coalesce(max(did), 0) FROM c_{c}

-- name: renumber_documents
-- Revisions of an older file become the sequence number of the last change; 0 if that is forgotten.
UPDATE c_{c} SET rev = coalesce((SELECT max(seq) FROM chg WHERE coll = ? AND id = id_key), 0)
