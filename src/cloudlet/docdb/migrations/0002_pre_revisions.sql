-- Revisions become sequence numbers: a document's revision is that of its last change (the tables c_<n> are
-- renumbered by the code that runs this). The change log loses its own revision and is found by collection.
-- Collections get a custom rule, indexes their rarer options as JSON.
ALTER TABLE coll ADD COLUMN rule TEXT;

ALTER TABLE idx ADD COLUMN options TEXT NOT NULL DEFAULT '{}';

ALTER TABLE chg RENAME TO old_chg;

CREATE TABLE chg (
    seq INTEGER PRIMARY KEY,
    coll TEXT NOT NULL,
    op TEXT NOT NULL,
    id BLOB NOT NULL,
    before BLOB,
    after BLOB,
    at INTEGER NOT NULL
);

INSERT INTO chg (seq, coll, op, id, before, after, at)
SELECT seq, coll, op, id, before, after, at FROM old_chg ORDER BY seq;

DROP TABLE old_chg;

CREATE INDEX chg_by_collection ON chg (coll, seq);
