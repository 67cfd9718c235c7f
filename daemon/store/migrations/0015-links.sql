-- Version 15. What each component of a backup goes on from, and the stamp by which another can go on from it: session_id is the
-- backup, operation the key (engine/chain.c), begun with what the catalog knows.
CREATE TABLE links (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX links_visible ON links (id) WHERE hidden = 0;
CREATE INDEX links_by_key ON links (operation, id) WHERE hidden = 0;
CREATE TEMP TABLE parts AS
    SELECT b.id AS backup, c.key AS n, b.created_ms AS made,
        char(10) || coalesce(json_extract(c.value, '$.instance_id'), '') || char(10) || coalesce(json_extract(c.value, '$.logical_path'), '')
            || char(10) || coalesce(json_extract(c.value, '$.name'), '') || char(10) AS part,
        json_extract(c.value, '$.backup_stamp') AS stamp, json_extract(c.value, '$.previous_stamp') AS previous,
        json_extract(c.value, '$.previous_backup_id') AS previous_id, json_extract(c.value, '$.backup_type') AS type
    FROM backups b, json_each(CASE WHEN json_valid(b.doc) THEN b.doc ELSE '{}' END, '$.components') c
    WHERE c.type = 'object';
INSERT INTO links (id, session_id, operation, created_ms, expires_ms, hidden, doc)
    SELECT backup || ':' || n || ':on', backup, CASE WHEN previous_id IS NULL THEN 'on' || part || previous ELSE 'on' || char(10) || previous_id END,
        made, 0, 0, json_object('id', backup || ':' || n || ':on', 'backup_id', backup)
    FROM parts WHERE previous_id IS NOT NULL OR (previous IS NOT NULL AND type IN ('incremental', 'differential', 'log'));
INSERT INTO links (id, session_id, operation, created_ms, expires_ms, hidden, doc)
    SELECT backup || ':' || n || ':own', backup, 'own' || part || stamp, made, 0, 0,
        json_object('id', backup || ':' || n || ':own', 'backup_id', backup)
    FROM parts WHERE stamp IS NOT NULL;
DROP TABLE parts;
