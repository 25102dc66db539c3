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

-- name: add_index
-- A new row of the catalog of indexes.
INSERT INTO idx (coll, name, parts, uniq, ready) VALUES (?, ?, ?, ?, ?)

-- name: remove_index
-- Forget an index.
DELETE FROM idx WHERE n = ?

-- name: remove_indexes_of
-- Forget all indexes of a collection.
DELETE FROM idx WHERE coll = ?

-- name: publish_index
-- From now on the index may be read.
UPDATE idx SET ready = 1 WHERE n = ?

-- name: set_index_flags
-- An index has met an array or a key that hides a difference.
UPDATE idx SET multikey = ?, lossy = ? WHERE n = ?

-- name: collections
-- The catalog of collections.
SELECT n, name, preset FROM coll ORDER BY n

-- name: indexes
-- The catalog of indexes.
SELECT n, coll, name, parts, uniq, multikey, lossy, ready FROM idx ORDER BY n

-- name: get
-- One document by its id key.
SELECT did, id_key, rev, json(body) FROM c_{c} WHERE id_key = ?

-- name: scan
-- All documents in order of insertion.
SELECT did, id_key, rev, json(body) FROM c_{c} ORDER BY did

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
INSERT INTO c_{c} (id_key, rev, body) VALUES (?, 1, jsonb(?))

-- name: log_insert
-- The change-log row of the document just inserted.
INSERT INTO chg (coll, rev, op, id, after, at) SELECT ?, rev, 'insert', id_key, body, ? FROM c_{c} WHERE did = ?

-- name: log_update
-- The change-log row of an update, written before it: the old body is still there, the new one is taken from here.
INSERT INTO chg (coll, rev, op, id, before, after, at)
SELECT ?, rev + 1, 'update', id_key, body, jsonb(?), ? FROM c_{c} WHERE did = ? AND rev = ?

-- name: update_document
-- Put the new body, which the change log already holds, in place.
UPDATE c_{c} SET rev = rev + 1, body = (SELECT after FROM chg WHERE seq = ?) WHERE did = ?

-- name: log_delete
-- The change-log row of a removal, written before it.
INSERT INTO chg (coll, rev, op, id, before, at)
SELECT ?, rev + 1, 'delete', id_key, body, ? FROM c_{c} WHERE did = ? AND rev = ?

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
SELECT seq, coll, rev, op, json(before), json(after), at FROM chg WHERE seq > ? ORDER BY seq LIMIT ?

-- name: last_seq
-- The newest change.
SELECT coalesce(max(seq), 0) FROM chg

-- name: prune_changes
-- Forget changes up to a sequence number.
DELETE FROM chg WHERE seq <= ?

-- name: count_documents
-- How many documents a collection has.
SELECT count(*) FROM c_{c}

-- name: newest_document
-- About how many documents a collection has had.
SELECT coalesce(max(did), 0) FROM c_{c}
