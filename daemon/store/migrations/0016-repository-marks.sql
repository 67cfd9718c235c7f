-- Version 16. Repositories that have been seen at their place, and as which one: a copy makes no new one there (engine/backup/repository_marks.c).
CREATE TABLE repository_marks (
    id TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    session_id TEXT, job_id TEXT, owner TEXT, state TEXT, operation TEXT,
    created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, hidden INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX repository_marks_visible ON repository_marks (id) WHERE hidden = 0;
