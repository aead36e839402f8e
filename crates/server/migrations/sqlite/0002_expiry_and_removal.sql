-- Accounts may end by themselves, and a removed device is remembered, so that its key stays out.

ALTER TABLE users ADD COLUMN expires BIGINT;      -- Unix seconds; NULL: never

ALTER TABLE devices ADD COLUMN removed BIGINT;    -- Unix seconds; NULL: in use
