-- Version 13. The audit trail: doc is a record of the chain (crypto/chain.h), byte for byte; the other columns are for finding it.
-- job_id is the call, session_id what it was about, state 'open' until an outcome is known.
CREATE TABLE audit (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX audit_visible ON audit (id) WHERE hidden = 0;
CREATE INDEX audit_by_owner ON audit (owner, id) WHERE hidden = 0;
CREATE INDEX audit_by_operation ON audit (operation, id) WHERE hidden = 0;
CREATE INDEX audit_by_session ON audit (session_id, id) WHERE hidden = 0;
CREATE INDEX audit_open ON audit (state, id) WHERE hidden = 0 AND state = 'open';
CREATE INDEX audit_by_call ON audit (job_id, id) WHERE hidden = 0;
