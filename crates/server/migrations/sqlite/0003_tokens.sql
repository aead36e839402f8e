-- A session may have several good tokens for a while: each resume gives a new one, and the old ones
-- stay good until the client has stored it. Retired ones are remembered, to be told from unknown ones.

ALTER TABLE sessions RENAME TO sessions_before;

CREATE TABLE sessions (
    id         BLOB   PRIMARY KEY,            -- 16 random bytes
    device_id  BIGINT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    generation BIGINT NOT NULL,               -- one more with each connection of the device
    opened     BIGINT NOT NULL,
    expires    BIGINT NOT NULL,
    closed     BIGINT
);

CREATE TABLE tokens (
    hash       BLOB   PRIMARY KEY,            -- SHA-256 of the token
    session_id BLOB   NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    generation BIGINT NOT NULL,               -- that of the connection it was given to
    retired    BIGINT NOT NULL DEFAULT 0      -- 1: the client has stored a later one
);

INSERT INTO sessions SELECT id, device_id, generation, opened, expires, closed FROM sessions_before;
INSERT INTO tokens (hash, session_id, generation) SELECT token_hash, id, generation FROM sessions_before;

DROP TABLE sessions_before;

CREATE INDEX sessions_by_device ON sessions (device_id);
CREATE INDEX tokens_by_session ON tokens (session_id);
