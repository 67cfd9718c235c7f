-- Version 14. Seals of the audit trail (crypto/audit_seal.h): id is the number of the record that one seals, as in audit.
CREATE TABLE seals (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX seals_visible ON seals (id) WHERE hidden = 0;
