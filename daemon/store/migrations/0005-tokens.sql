-- Version 5. Tokens of the API: doc holds the SHA-256 of the secret, never the secret.
CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX tokens_visible ON tokens (id) WHERE hidden = 0;
CREATE INDEX tokens_by_owner ON tokens (owner, id) WHERE hidden = 0;
CREATE INDEX tokens_expiring ON tokens (expires_ms) WHERE expires_ms > 0;
