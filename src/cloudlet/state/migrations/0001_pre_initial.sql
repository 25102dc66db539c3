-- Control records: environments, functions, users, keys.

CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    sequence INTEGER NOT NULL
) STRICT;
INSERT INTO meta (one, sequence) VALUES (1, 0);

CREATE TABLE environments (
    name TEXT PRIMARY KEY,
    created_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE environment_aliases (
    alias TEXT PRIMARY KEY,
    environment TEXT NOT NULL REFERENCES environments (name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX environment_aliases_by_environment ON environment_aliases (environment);

CREATE TABLE credentials (
    environment TEXT PRIMARY KEY REFERENCES environments (name) ON DELETE CASCADE,
    secret_id TEXT NOT NULL UNIQUE,
    secret_key TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE versions (
    environment TEXT NOT NULL REFERENCES environments (name) ON DELETE CASCADE,
    function TEXT NOT NULL,
    digest TEXT NOT NULL,
    number INTEGER NOT NULL,
    config TEXT NOT NULL,
    code_dir TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (environment, function, digest),
    UNIQUE (environment, function, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE aliases (
    environment TEXT NOT NULL,
    function TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    updated_at REAL NOT NULL,
    PRIMARY KEY (environment, function, name),
    FOREIGN KEY (environment, function, digest) REFERENCES versions (environment, function, digest) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX aliases_by_version ON aliases (environment, function, digest);

CREATE TABLE users (
    environment TEXT NOT NULL REFERENCES environments (name) ON DELETE CASCADE,
    uid TEXT NOT NULL,
    login_type TEXT NOT NULL,
    created_at REAL NOT NULL,
    openid TEXT NOT NULL,
    appid TEXT NOT NULL,
    unionid TEXT NOT NULL,
    PRIMARY KEY (environment, uid)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX users_by_openid ON users (environment, openid) WHERE openid <> '';

CREATE TABLE refresh_tokens (
    token_hash TEXT PRIMARY KEY,
    environment TEXT NOT NULL REFERENCES environments (name) ON DELETE CASCADE,
    uid TEXT NOT NULL,
    session_id TEXT NOT NULL,
    expires_at REAL NOT NULL,
    used_at REAL
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (environment, session_id);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

CREATE TABLE revoked_sessions (
    session_id TEXT PRIMARY KEY,
    expires_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY,
    private_pem TEXT NOT NULL,
    created_at REAL NOT NULL,
    retired_at REAL
) STRICT, WITHOUT ROWID;
