-- Version 8. The last success of each label (GET /metrics), begun with what the catalog knows.
CREATE TABLE successes (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX successes_visible ON successes (id) WHERE hidden = 0;
CREATE INDEX successes_expiring ON successes (expires_ms) WHERE expires_ms > 0;
INSERT INTO successes (id, created_ms, expires_ms, hidden, doc)
    SELECT 'label:' || label, max(created_ms), 0, 0, json_object('id', 'label:' || label, 'label', label, 'at_ms', max(created_ms))
    FROM (SELECT created_ms, CASE WHEN json_valid(doc) THEN coalesce(json_extract(doc, '$.label'), '') END AS label,
          CASE WHEN json_valid(doc) THEN json_extract(doc, '$.complete') END AS complete FROM backups)
    WHERE complete AND label IS NOT NULL GROUP BY label ORDER BY max(created_ms) DESC LIMIT 200;
