-- Version 2. Records that cannot be read are moved here at start instead of stopping the daemon; nothing is thrown away.
CREATE TABLE quarantine (
    kind TEXT NOT NULL, -- the table that it was in
    id TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER, expires_ms INTEGER, hidden INTEGER,
    doc
);
CREATE INDEX quarantine_by_kind ON quarantine (kind, id);
