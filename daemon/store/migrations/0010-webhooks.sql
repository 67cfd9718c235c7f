-- Version 10. Webhooks, and their deliveries: session_id of a delivery is its webhook.
CREATE TABLE webhooks (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX webhooks_visible ON webhooks (id) WHERE hidden = 0;
CREATE INDEX webhooks_expiring ON webhooks (expires_ms) WHERE expires_ms > 0;
CREATE TABLE deliveries (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX deliveries_by_webhook ON deliveries (session_id, id) WHERE hidden = 0;
CREATE INDEX deliveries_by_webhook_and_state ON deliveries (session_id, state, id) WHERE hidden = 0;
CREATE INDEX deliveries_by_state ON deliveries (state, id) WHERE hidden = 0;
CREATE INDEX deliveries_expiring ON deliveries (expires_ms) WHERE expires_ms > 0;
