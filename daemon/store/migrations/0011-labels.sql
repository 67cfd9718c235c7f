-- Version 11. Sessions and backups are asked for by label (job_id), backups by repository (operation), too.
UPDATE sessions SET job_id = json_extract(doc, '$.label') WHERE json_valid(doc);
UPDATE backups SET job_id = json_extract(doc, '$.label'), operation = json_extract(doc, '$.repository') WHERE json_valid(doc);
CREATE INDEX sessions_by_label ON sessions (job_id, id) WHERE hidden = 0 AND job_id IS NOT NULL;
CREATE INDEX backups_by_label ON backups (job_id, id) WHERE hidden = 0 AND job_id IS NOT NULL;
CREATE INDEX backups_by_repository ON backups (operation, id) WHERE hidden = 0;
