-- The schema and its history: numbered steps, only ever added to. A database remembers in schema_steps which it has had,
-- and a start applies the rest in one transaction. One text for SQLite from 3.35 and PostgreSQL from 12. Times are UTC.

-- step 1: companies
CREATE TABLE companies (
    id            UUID PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    key_prefix    TEXT NOT NULL,                    -- the visible start of the API key
    key_hash      TEXT NOT NULL,                    -- SHA-256 of the API key, hex
    sealed_secret TEXT NOT NULL,                    -- signs tokens; AES-256-GCM under the server key
    tier          TEXT NOT NULL DEFAULT 'free' CHECK (tier IN ('free', 'pro', 'enterprise')),
    is_active     BOOLEAN NOT NULL DEFAULT TRUE,
    is_default    BOOLEAN NOT NULL DEFAULT FALSE,   -- whose rooms are entered without a token
    created_at    TIMESTAMPTZ NOT NULL,
    updated_at    TIMESTAMPTZ NOT NULL
);
CREATE INDEX companies_by_key ON companies (key_prefix);
CREATE UNIQUE INDEX companies_default ON companies (is_default) WHERE is_default;

-- step 2: rooms
CREATE TABLE rooms (
    id               UUID PRIMARY KEY,
    company_id       UUID NOT NULL REFERENCES companies (id) ON DELETE CASCADE,
    room_id          TEXT NOT NULL,                 -- what people call it: team-meeting
    name             TEXT NOT NULL DEFAULT '',
    description      TEXT NOT NULL DEFAULT '',
    max_participants INTEGER NOT NULL DEFAULT 100 CHECK (max_participants > 0),
    access           TEXT NOT NULL DEFAULT 'open' CHECK (access IN ('open', 'token')),
    metadata         JSONB NOT NULL DEFAULT '{}',
    version          INTEGER NOT NULL DEFAULT 1,    -- goes up with every edit
    created_at       TIMESTAMPTZ NOT NULL,
    updated_at       TIMESTAMPTZ NOT NULL,
    last_join_at     TIMESTAMPTZ,                   -- written first by every join: the lock that keeps the count right
    UNIQUE (company_id, room_id)
);

-- step 3: tokens
CREATE TABLE tokens (
    id          UUID PRIMARY KEY,                   -- the token's jti
    company_id  UUID NOT NULL REFERENCES companies (id) ON DELETE CASCADE,
    token_hash  TEXT NOT NULL,                      -- SHA-256 of the token, hex
    room_id     TEXT NOT NULL,
    user_name   TEXT NOT NULL,
    permissions JSONB NOT NULL DEFAULT '{}',
    single_use  BOOLEAN NOT NULL DEFAULT FALSE,
    created_at  TIMESTAMPTZ NOT NULL,
    expires_at  TIMESTAMPTZ NOT NULL,
    used_at     TIMESTAMPTZ,                        -- first join with it
    revoked_at  TIMESTAMPTZ
);
CREATE INDEX tokens_by_company ON tokens (company_id, created_at DESC, id DESC);
CREATE INDEX tokens_by_room ON tokens (company_id, room_id);

-- step 4: sessions
CREATE TABLE sessions (
    id              UUID PRIMARY KEY,
    company_id      UUID NOT NULL REFERENCES companies (id) ON DELETE CASCADE,
    room_id         TEXT NOT NULL,                  -- no foreign key: history outlives its room
    user_name       TEXT NOT NULL,
    token_id        UUID REFERENCES tokens (id) ON DELETE SET NULL,
    server          TEXT NOT NULL,                  -- the server that holds the connection
    peer_address    TEXT NOT NULL DEFAULT '',
    connected_at    TIMESTAMPTZ NOT NULL,
    last_seen_at    TIMESTAMPTZ NOT NULL,
    disconnected_at TIMESTAMPTZ,
    leave_reason    TEXT,
    day             DATE NOT NULL,                  -- of connected_at, UTC
    duration_s      DOUBLE PRECISION,               -- once closed
    concurrency     INTEGER NOT NULL,               -- how many were in the room with this one, itself included
    metadata        JSONB NOT NULL DEFAULT '{}'
);
CREATE INDEX sessions_by_room ON sessions (company_id, room_id, connected_at DESC, id DESC);
CREATE INDEX sessions_by_day ON sessions (company_id, day DESC, room_id, user_name, duration_s, concurrency);
CREATE INDEX sessions_open ON sessions (company_id, room_id, user_name) WHERE disconnected_at IS NULL;
CREATE INDEX sessions_by_token ON sessions (token_id) WHERE token_id IS NOT NULL;

-- step 5: how calls went
ALTER TABLE sessions ADD COLUMN score_mean DOUBLE PRECISION;     -- 1 (bad) to 4.4; all of these are empty until the
ALTER TABLE sessions ADD COLUMN score_min DOUBLE PRECISION;      -- session is closed, and where nothing flowed
ALTER TABLE sessions ADD COLUMN loss_up DOUBLE PRECISION;        -- up is from the person to the server; fractions
ALTER TABLE sessions ADD COLUMN loss_down DOUBLE PRECISION;
ALTER TABLE sessions ADD COLUMN jitter_up_ms DOUBLE PRECISION;
ALTER TABLE sessions ADD COLUMN jitter_down_ms DOUBLE PRECISION;
ALTER TABLE sessions ADD COLUMN round_trip_ms DOUBLE PRECISION;
ALTER TABLE sessions ADD COLUMN bytes_up BIGINT;
ALTER TABLE sessions ADD COLUMN bytes_down BIGINT;
DROP INDEX sessions_by_day;
CREATE INDEX sessions_by_day ON sessions
    (company_id, day DESC, room_id, user_name, duration_s, concurrency, score_mean, score_min);

-- step 6: moderation
ALTER TABLE rooms ADD COLUMN locked BOOLEAN NOT NULL DEFAULT FALSE;     -- nobody enters who may not moderate
ALTER TABLE rooms ADD COLUMN lobby BOOLEAN NOT NULL DEFAULT FALSE;      -- who may not moderate waits to be let in
ALTER TABLE rooms ADD COLUMN files BOOLEAN NOT NULL DEFAULT TRUE;       -- files may be shared in the chat
ALTER TABLE rooms ADD COLUMN chat_kept_s INTEGER CHECK (chat_kept_s >= 0);  -- 0: not at all; null: as the server says
CREATE TABLE bans (
    id         UUID PRIMARY KEY,
    company_id UUID NOT NULL REFERENCES companies (id) ON DELETE CASCADE,
    room_id    TEXT NOT NULL,
    user_name  TEXT NOT NULL,                   -- who was removed
    token_id   UUID,                            -- the token that stays out; no foreign key: it outlives the token's record
    name_key   TEXT NOT NULL DEFAULT '',        -- without a token: the name, case-folded …
    address    TEXT NOT NULL DEFAULT '',        -- … and the address (of IPv6 the /64) that stay out together
    banned_by  TEXT NOT NULL DEFAULT '',        -- the moderator's name; empty for the API
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX bans_by_room ON bans (company_id, room_id, created_at DESC, id DESC);
CREATE INDEX bans_over ON bans (expires_at);

-- step 7: chat
CREATE TABLE files (
    id         UUID PRIMARY KEY,                -- random; part of its address, and its name on the disk
    company_id UUID NOT NULL REFERENCES companies (id) ON DELETE CASCADE,
    room_id    TEXT NOT NULL,
    name       TEXT NOT NULL,
    type       TEXT NOT NULL,
    size       BIGINT NOT NULL,                 -- bytes
    sent_ms    BIGINT NOT NULL,                 -- milliseconds since 1970
    expires_ms BIGINT NOT NULL
);
CREATE INDEX files_by_room ON files (company_id, room_id, size);
CREATE INDEX files_over ON files (expires_ms);
CREATE TABLE chat_lines (
    id         UUID PRIMARY KEY,
    company_id UUID NOT NULL REFERENCES companies (id) ON DELETE CASCADE,
    room_id    TEXT NOT NULL,                   -- no foreign key: a line may be written after its room was deleted
    peer       TEXT NOT NULL,                   -- the peer's id in its call
    user_name  TEXT NOT NULL,
    text       TEXT NOT NULL,
    file_id    UUID REFERENCES files (id) ON DELETE CASCADE,
    sent_ms    BIGINT NOT NULL,                 -- milliseconds since 1970; no two lines of a call have the same
    expires_ms BIGINT NOT NULL
);
CREATE INDEX chat_lines_by_room ON chat_lines (company_id, room_id, sent_ms DESC, id DESC);
CREATE INDEX chat_lines_by_file ON chat_lines (file_id) WHERE file_id IS NOT NULL;
CREATE INDEX chat_lines_over ON chat_lines (expires_ms);

-- step 8: retention
CREATE INDEX sessions_over ON sessions (disconnected_at) WHERE disconnected_at IS NOT NULL;
CREATE INDEX tokens_over ON tokens (expires_at);

-- step 9: who is in a room
DROP INDEX sessions_open;
CREATE INDEX sessions_open ON sessions (company_id, room_id, connected_at, id, user_name) WHERE disconnected_at IS NULL;

-- step 10: rooms and sessions that links made
ALTER TABLE rooms ADD COLUMN kept BOOLEAN NOT NULL DEFAULT TRUE;    -- false: somebody entered a name, and it was never edited
UPDATE rooms SET kept = FALSE
WHERE version = 1 AND company_id IN (SELECT id FROM companies WHERE is_default) AND EXISTS (
    SELECT 1 FROM sessions AS s WHERE s.company_id = rooms.company_id AND s.room_id = rooms.room_id
        AND s.connected_at = rooms.created_at AND s.token_id IS NULL
);
CREATE INDEX rooms_unkept ON rooms (last_join_at) WHERE NOT kept;
CREATE INDEX sessions_guests ON sessions (disconnected_at) WHERE token_id IS NULL AND disconnected_at IS NOT NULL;

-- step 11: canonical names
-- no statements: sfu/store/renaming.py renames rooms that older releases stored under another spelling

-- step 12: lost connections
ALTER TABLE sessions ADD COLUMN drops INTEGER NOT NULL DEFAULT 0;       -- how often the connection was lost …
ALTER TABLE sessions ADD COLUMN returns INTEGER NOT NULL DEFAULT 0;     -- … and how often the person came back
ALTER TABLE sessions ADD COLUMN last_drop TEXT;                         -- why it was lost last

-- step 13: audit
CREATE TABLE audit_entries (                                -- only ever added to, until retention ends
    id         UUID PRIMARY KEY,
    company_id UUID,                                -- no foreign key: it outlives its company; null: the whole server
    at         TIMESTAMPTZ NOT NULL,
    by_kind    TEXT NOT NULL,                       -- key, admin, token, person, command or server
    by_id      TEXT NOT NULL,                       -- of the key, token or session
    by_name    TEXT NOT NULL,
    address    TEXT NOT NULL,
    request_id TEXT NOT NULL,
    action     TEXT NOT NULL,                       -- such as room.changed
    room_id    TEXT,
    target     TEXT NOT NULL,                       -- the id of what was changed
    user_name  TEXT NOT NULL DEFAULT '',            -- the person it is about, if it is about one …
    session_id UUID,                                -- … and their session
    before     JSONB,                               -- null: there was nothing before …
    after      JSONB                                -- … or there is nothing now
);
CREATE INDEX audit_by_company ON audit_entries (company_id, at DESC, id DESC);
CREATE INDEX audit_over ON audit_entries (at);

-- step 14: events
CREATE TABLE events (
    id         UUID PRIMARY KEY,
    company_id UUID NOT NULL REFERENCES companies (id) ON DELETE CASCADE,
    seq        BIGINT NOT NULL,                     -- 1, 2, 3 … for each company, in the order of the transactions
    type       TEXT NOT NULL,                       -- such as participant.joined
    room_id    TEXT,
    user_name  TEXT NOT NULL DEFAULT '',            -- the person it is about, if it is about one …
    session_id UUID,                                -- … and their session
    data       JSONB NOT NULL,
    at         TIMESTAMPTZ NOT NULL,
    UNIQUE (company_id, seq)
);
CREATE INDEX events_over ON events (at);
ALTER TABLE companies ADD COLUMN last_seq BIGINT NOT NULL DEFAULT 0;   -- of its events

-- step 15: webhooks
CREATE TABLE webhooks (
    id              UUID PRIMARY KEY,
    company_id      UUID NOT NULL REFERENCES companies (id) ON DELETE CASCADE,
    url             TEXT NOT NULL,
    description     TEXT NOT NULL DEFAULT '',
    events          TEXT NOT NULL DEFAULT '',       -- the types it takes, separated by blanks; empty: all
    rooms           JSONB NOT NULL DEFAULT '[]',    -- the rooms it takes; empty: all
    sealed_secret   TEXT NOT NULL,                  -- signs deliveries; AES-256-GCM under the server key
    sealed_previous TEXT,                           -- signs as well, after a rotation …
    previous_until  TIMESTAMPTZ,                    -- … until then
    last_seq        BIGINT NOT NULL,                -- up to which events were turned into deliveries
    failing_since   TIMESTAMPTZ,                    -- the first failure since the last success
    paused_at       TIMESTAMPTZ,
    paused_why      TEXT,
    leased_by       TEXT,                           -- the server that sends its deliveries …
    leased_until    TIMESTAMPTZ,                    -- … until then, unless it takes more time
    created_at      TIMESTAMPTZ NOT NULL,
    updated_at      TIMESTAMPTZ NOT NULL
);
CREATE INDEX webhooks_by_company ON webhooks (company_id, created_at DESC, id DESC);
CREATE TABLE deliveries (
    id         UUID PRIMARY KEY,
    webhook_id UUID NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    company_id UUID NOT NULL,
    seq        BIGINT NOT NULL,                     -- of the event; no foreign key: the log outlives it
    event_id   UUID NOT NULL,
    type       TEXT NOT NULL,
    room_id    TEXT NOT NULL DEFAULT '',            -- empty: of no room
    user_name  TEXT NOT NULL DEFAULT '',            -- as in the event
    session_id UUID,
    body       TEXT NOT NULL,                       -- what is sent, byte for byte
    attempts   INTEGER NOT NULL DEFAULT 0,
    next_at    TIMESTAMPTZ,                         -- null: nothing is left to do, or another one of its room goes first
    state      TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'failed')),
    status     INTEGER,                             -- of the last response
    error      TEXT,                                -- of the last attempt
    took_ms    INTEGER,
    created_at TIMESTAMPTZ NOT NULL,
    tried_at   TIMESTAMPTZ
);
CREATE INDEX deliveries_due ON deliveries (webhook_id, next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_waiting ON deliveries (webhook_id, room_id, seq) WHERE state = 'waiting';
CREATE INDEX deliveries_by_webhook ON deliveries (webhook_id, created_at DESC, id DESC);
CREATE INDEX deliveries_over ON deliveries (created_at);

-- step 16: what tokens say of people
ALTER TABLE tokens ADD COLUMN user_id TEXT NOT NULL DEFAULT '';         -- the company's own id of the person
ALTER TABLE tokens ADD COLUMN metadata JSONB NOT NULL DEFAULT '{}';
ALTER TABLE tokens ADD COLUMN not_before TIMESTAMPTZ;
ALTER TABLE tokens ADD COLUMN max_duration_s INTEGER CHECK (max_duration_s > 0);    -- of the stay; null: no limit
ALTER TABLE sessions ADD COLUMN user_id TEXT NOT NULL DEFAULT '';
ALTER TABLE companies ADD COLUMN sealed_own_secret TEXT;                -- signs tokens that the company makes itself
CREATE INDEX sessions_by_user ON sessions (company_id, user_id, connected_at DESC, id DESC) WHERE user_id <> '';
CREATE INDEX sessions_by_time ON sessions (company_id, connected_at DESC, id DESC);

-- step 17: repeated requests
CREATE TABLE answers (
    id         UUID PRIMARY KEY,
    company_id UUID NOT NULL REFERENCES companies (id) ON DELETE CASCADE,
    key        TEXT NOT NULL,                       -- the Idempotency-Key
    request    TEXT NOT NULL,                       -- SHA-256 of method, path and body, hex
    status     INTEGER,                             -- null: the first request has not been answered
    sealed     TEXT,                                -- its headers and body, AES-256-GCM under the server key
    created_at TIMESTAMPTZ NOT NULL,
    UNIQUE (company_id, key)
);
CREATE INDEX answers_over ON answers (created_at);

-- step 18: tiers
CREATE TABLE tiers (                                -- no row, or null: no limit
    id              UUID PRIMARY KEY,
    tier            TEXT NOT NULL UNIQUE CHECK (tier IN ('free', 'pro', 'enterprise')),
    room_people     INTEGER,                        -- people in one room
    rooms           INTEGER,                        -- rooms that exist
    people          INTEGER,                        -- people in calls at once
    minutes_month   BIGINT,                         -- minutes of all people in a month, UTC
    tokens_minute   INTEGER,                        -- tokens issued in a minute
    file_bytes      BIGINT,                         -- size of one shared file
    history_days    INTEGER,                        -- how long sessions are kept
    recording       BOOLEAN NOT NULL DEFAULT TRUE
);

-- step 19: several keys
CREATE TABLE keys (
    id           UUID PRIMARY KEY,
    company_id   UUID REFERENCES companies (id) ON DELETE CASCADE,  -- null: an admin key, which is the server's
    name         TEXT NOT NULL,
    prefix       TEXT NOT NULL,                     -- the visible start of the key
    hash         TEXT NOT NULL,                     -- SHA-256 of the key, hex
    scopes       TEXT NOT NULL,                     -- what it may do, separated by blanks
    created_at   TIMESTAMPTZ NOT NULL,
    expires_at   TIMESTAMPTZ,
    last_used_at TIMESTAMPTZ,                       -- to the minute
    revoked_at   TIMESTAMPTZ
);
CREATE INDEX keys_by_prefix ON keys (prefix);
CREATE INDEX keys_by_company ON keys (company_id, created_at DESC, id DESC);
INSERT INTO keys (id, company_id, name, prefix, hash, scopes, created_at)
SELECT id, id, 'first', key_prefix, key_hash, 'admin', created_at FROM companies;
DROP INDEX companies_by_key;
ALTER TABLE companies DROP COLUMN key_prefix;
ALTER TABLE companies DROP COLUMN key_hash;
