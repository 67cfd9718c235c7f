-- Version 9. Logins of browsers, by the SHA-256 of their cookie.
CREATE TABLE logins (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX logins_visible ON logins (id) WHERE hidden = 0;
CREATE INDEX logins_by_owner ON logins (owner, id) WHERE hidden = 0;
CREATE INDEX logins_expiring ON logins (expires_ms) WHERE expires_ms > 0;
