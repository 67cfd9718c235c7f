-- Version 7. Answers of calls that came with an Idempotency-Key: id is the SHA-256 of principal, path and key.
CREATE TABLE idempotency (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX idempotency_expiring ON idempotency (expires_ms) WHERE expires_ms > 0;
