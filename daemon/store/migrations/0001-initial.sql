-- Version 1. One table per kind of record: doc is the whole truth, the other columns are its indexed members.
-- Indexes hold visible rows only and end in id: a page is read from one index, in order, without sorting.
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX sessions_visible ON sessions (id) WHERE hidden = 0;
CREATE INDEX sessions_by_state ON sessions (state, id) WHERE hidden = 0;
CREATE INDEX sessions_by_owner ON sessions (owner, id) WHERE hidden = 0;
CREATE INDEX sessions_expiring ON sessions (expires_ms) WHERE expires_ms > 0;

CREATE TABLE jobs (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX jobs_visible ON jobs (id) WHERE hidden = 0;
CREATE INDEX jobs_by_session ON jobs (session_id, id) WHERE hidden = 0;
CREATE INDEX jobs_by_state ON jobs (state, id) WHERE hidden = 0;
CREATE INDEX jobs_by_operation ON jobs (operation, id) WHERE hidden = 0;
CREATE INDEX jobs_by_owner ON jobs (owner, id) WHERE hidden = 0;
CREATE INDEX jobs_expiring ON jobs (expires_ms) WHERE expires_ms > 0;

CREATE TABLE snapshots (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX snapshots_visible ON snapshots (id) WHERE hidden = 0;
CREATE INDEX snapshots_by_session ON snapshots (session_id, id) WHERE hidden = 0;
CREATE INDEX snapshots_expiring ON snapshots (expires_ms) WHERE expires_ms > 0;

CREATE TABLE backups (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX backups_visible ON backups (id) WHERE hidden = 0;
CREATE INDEX backups_by_session ON backups (session_id, id) WHERE hidden = 0;
CREATE INDEX backups_by_owner ON backups (owner, id) WHERE hidden = 0;
CREATE INDEX backups_expiring ON backups (expires_ms) WHERE expires_ms > 0;

CREATE TABLE repositories (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX repositories_visible ON repositories (id) WHERE hidden = 0;

CREATE TABLE errors (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX errors_visible ON errors (id) WHERE hidden = 0;
CREATE INDEX errors_by_session ON errors (session_id, id) WHERE hidden = 0;
CREATE INDEX errors_by_job ON errors (job_id, id) WHERE hidden = 0;
CREATE INDEX errors_expiring ON errors (expires_ms) WHERE expires_ms > 0;

-- AUTOINCREMENT: an id is never given twice, even when the newest events are gone.
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    type TEXT NOT NULL,
    session_id TEXT, job_id TEXT,
    data TEXT
);
