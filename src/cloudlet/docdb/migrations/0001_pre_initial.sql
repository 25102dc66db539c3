-- The catalog and the change log. Each collection n has a table c_<n>, each index n a table x_<n>.
CREATE TABLE coll (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    preset TEXT NOT NULL
);

CREATE TABLE idx (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    coll INTEGER NOT NULL REFERENCES coll (n),
    name TEXT NOT NULL,
    parts TEXT NOT NULL,
    uniq INTEGER NOT NULL,
    multikey INTEGER NOT NULL DEFAULT 0,
    lossy INTEGER NOT NULL DEFAULT 0,
    ready INTEGER NOT NULL DEFAULT 0,
    UNIQUE (coll, name)
);

CREATE TABLE chg (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    coll TEXT NOT NULL,
    rev INTEGER NOT NULL,
    op TEXT NOT NULL,
    id BLOB NOT NULL,
    before BLOB,
    after BLOB,
    at INTEGER NOT NULL
);
