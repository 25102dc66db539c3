-- sequence --
-- The number of the last committed change
SELECT sequence FROM meta WHERE one = 1

-- bump_sequence --
-- Count one change
UPDATE meta SET sequence = sequence + 1 WHERE one = 1

-- environments --
-- Every environment by name
SELECT name, created_at FROM environments ORDER BY name

-- environment --
-- One environment
SELECT name, created_at FROM environments WHERE name = ?

-- environment_of_alias --
-- The environment that an alias points to
SELECT e.name, e.created_at FROM environment_aliases AS a JOIN environments AS e ON e.name = a.environment
WHERE a.alias = ?

-- environment_aliases --
-- Every alias by name, with its environment
SELECT alias, environment FROM environment_aliases ORDER BY alias

-- aliases_of_environment --
-- The aliases of one environment by name
SELECT alias FROM environment_aliases WHERE environment = ? ORDER BY alias

-- add_environment --
-- A new environment
INSERT INTO environments (name, created_at) VALUES (?, ?)

-- add_environment_if_absent --
-- An environment that must exist
INSERT INTO environments (name, created_at) VALUES (?, ?) ON CONFLICT (name) DO NOTHING

-- delete_environment --
-- An environment with everything that belongs to it
DELETE FROM environments WHERE name = ?

-- set_environment_alias --
-- Point an alias to an environment, wherever it pointed before
INSERT INTO environment_aliases (alias, environment) VALUES (?, ?)
ON CONFLICT (alias) DO UPDATE SET environment = excluded.environment

-- credential --
-- The key pair of an environment
SELECT environment, secret_id, secret_key, created_at FROM credentials WHERE environment = ?

-- credential_by_id --
-- The key pair with this id
SELECT environment, secret_id, secret_key, created_at FROM credentials WHERE secret_id = ?

-- add_credential --
-- A new key pair
INSERT INTO credentials (environment, secret_id, secret_key, created_at) VALUES (?, ?, ?, ?)

-- functions --
-- Functions of an environment by name: the version that one alias names, and when it was pointed there
SELECT v.environment, v.function, v.digest, v.number, v.config, v.code_dir, v.created_at, a.name, a.updated_at
FROM aliases AS a
JOIN versions AS v ON v.environment = a.environment AND v.function = a.function AND v.digest = a.digest
WHERE a.environment = ? AND a.name = ?
ORDER BY v.function

-- function --
-- The version of a function that one alias names
SELECT v.environment, v.function, v.digest, v.number, v.config, v.code_dir, v.created_at
FROM aliases AS a
JOIN versions AS v ON v.environment = a.environment AND v.function = a.function AND v.digest = a.digest
WHERE a.environment = ? AND a.function = ? AND a.name = ?

-- count_functions --
-- How many functions there are that one alias of theirs names a version of
SELECT count(*) FROM aliases WHERE name = ?

-- versions --
-- Versions of a function, newest first
SELECT environment, function, digest, number, config, code_dir, created_at
FROM versions WHERE environment = ? AND function = ? ORDER BY number DESC

-- version --
-- One version
SELECT environment, function, digest, number, config, code_dir, created_at
FROM versions WHERE environment = ? AND function = ? AND digest = ?

-- next_version_number --
-- The number that the next version of a function gets
SELECT coalesce(max(number), 0) + 1 FROM versions WHERE environment = ? AND function = ?

-- add_version --
-- A new version
INSERT INTO versions (environment, function, digest, number, config, code_dir, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?)

-- point_alias --
-- Let an alias of a function name a version
INSERT INTO aliases (environment, function, name, digest, updated_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (environment, function, name)
DO UPDATE SET digest = excluded.digest, updated_at = excluded.updated_at

-- delete_function --
-- Every version of a function, and its aliases with them
DELETE FROM versions WHERE environment = ? AND function = ?

-- aliased_versions --
-- Every version that an alias points to
SELECT environment, function, digest, number, config, code_dir, created_at FROM versions AS v
WHERE EXISTS (
    SELECT 1 FROM aliases AS a
    WHERE a.environment = v.environment AND a.function = v.function AND a.digest = v.digest
)
ORDER BY environment, function, number

-- aliases --
-- Every alias of every function
SELECT environment, function, name, digest, updated_at FROM aliases ORDER BY environment, function, name

-- user --
-- One user
SELECT environment, uid, login_type, created_at, openid, appid, unionid FROM users
WHERE environment = ? AND uid = ?

-- user_by_openid --
-- The user with this openid
SELECT environment, uid, login_type, created_at, openid, appid, unionid FROM users
WHERE environment = ? AND openid = ? AND openid <> ''

-- add_user --
-- A new user
INSERT INTO users (environment, uid, login_type, created_at, openid, appid, unionid)
VALUES (?, ?, ?, ?, ?, ?, ?)

-- complete_user --
-- Fill in what became known about a user since the first sign-in
UPDATE users SET appid = ?, unionid = ? WHERE environment = ? AND uid = ?

-- add_refresh_token --
-- A new refresh token
INSERT INTO refresh_tokens (token_hash, environment, uid, session_id, expires_at, used_at)
VALUES (?, ?, ?, ?, ?, ?)

-- refresh_token --
-- One refresh token by its hash
SELECT token_hash, environment, uid, session_id, expires_at, used_at FROM refresh_tokens WHERE token_hash = ?

-- mark_refresh_token --
-- Mark a token used; the first use stays
UPDATE refresh_tokens SET used_at = ? WHERE token_hash = ? AND used_at IS NULL

-- purge_refresh_tokens --
-- Forget tokens that have expired
DELETE FROM refresh_tokens WHERE expires_at <= ?

-- delete_session --
-- Every refresh token of a session
DELETE FROM refresh_tokens WHERE environment = ? AND session_id = ?

-- revoke_session --
-- Remember a session as revoked while access tokens of it may live
INSERT INTO revoked_sessions (session_id, expires_at) VALUES (?, ?)
ON CONFLICT (session_id) DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)

-- purge_revoked_sessions --
-- Forget revoked sessions whose access tokens have expired
DELETE FROM revoked_sessions WHERE expires_at <= ?

-- revoked_sessions --
-- Revoked sessions of which access tokens may still live
SELECT session_id, expires_at FROM revoked_sessions WHERE expires_at > ? ORDER BY session_id

-- signing_keys --
-- Keys of the token issuer, newest first
SELECT kid, private_pem, created_at, retired_at FROM signing_keys ORDER BY created_at DESC, kid

-- put_signing_key --
-- A new key, or what changed about a known one
INSERT INTO signing_keys (kid, private_pem, created_at, retired_at) VALUES (?, ?, ?, ?)
ON CONFLICT (kid) DO UPDATE SET retired_at = excluded.retired_at

-- delete_signing_key --
-- A key that no living token was signed with
DELETE FROM signing_keys WHERE kid = ?
