-- Users, their devices, invitations and sessions. Times are Unix seconds, flags 0 or 1.

CREATE TABLE users (
    id            INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    password_hash TEXT,                       -- Argon2id in PHC format; NULL: enters by invitation only
    enabled       BIGINT  NOT NULL DEFAULT 1,
    created       BIGINT  NOT NULL
);

CREATE TABLE devices (
    id         INTEGER PRIMARY KEY,
    user_id    BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    public_key BLOB   NOT NULL,               -- Ed25519
    name       TEXT   NOT NULL,
    inner_v4   TEXT   UNIQUE,                 -- sticky; the IPv6 address mirrors its host part
    created    BIGINT NOT NULL,
    last_seen  BIGINT NOT NULL,
    UNIQUE (user_id, public_key)
);

CREATE TABLE invitations (
    id         INTEGER PRIMARY KEY,
    user_id    BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    enrol_hash BLOB   NOT NULL UNIQUE,        -- SHA-256 of the enrol secret
    created    BIGINT NOT NULL,
    expires    BIGINT NOT NULL,
    used_by    BLOB,                          -- public key of the device that enrolled
    used_at    BIGINT,
    revoked    BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE sessions (
    id         BLOB   PRIMARY KEY,            -- 16 random bytes
    device_id  BIGINT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    token_hash BLOB   NOT NULL UNIQUE,        -- SHA-256 of the token
    generation BIGINT NOT NULL DEFAULT 1,
    opened     BIGINT NOT NULL,
    expires    BIGINT NOT NULL,
    closed     BIGINT
);

CREATE INDEX sessions_by_device ON sessions (device_id);

CREATE TABLE secrets (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
);
