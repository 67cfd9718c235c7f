-- Version 6. Client certificates that were enrolled (by the SHA-256 of the certificate), and enrolments (by that of their code).
CREATE TABLE certificates (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX certificates_visible ON certificates (id) WHERE hidden = 0;
CREATE INDEX certificates_by_owner ON certificates (owner, id) WHERE hidden = 0;
CREATE INDEX certificates_expiring ON certificates (expires_ms) WHERE expires_ms > 0;
CREATE TABLE enrolments (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX enrolments_visible ON enrolments (id) WHERE hidden = 0;
CREATE INDEX enrolments_by_owner ON enrolments (owner, id) WHERE hidden = 0;
CREATE INDEX enrolments_expiring ON enrolments (expires_ms) WHERE expires_ms > 0;
