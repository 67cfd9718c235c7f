-- Version 4. Snapshots are asked for by set (job_id), by volume (operation) and by context (state); reverts, which are jobs, by volume (job_id).
UPDATE snapshots SET job_id = json_extract(doc, '$.set_id'), operation = json_extract(doc, '$.volume'), state = json_extract(doc, '$.context')
    WHERE json_valid(doc);
CREATE INDEX snapshots_by_set ON snapshots (job_id, id) WHERE hidden = 0;
CREATE INDEX snapshots_by_volume ON snapshots (operation, id) WHERE hidden = 0;
CREATE INDEX jobs_by_volume ON jobs (job_id, id) WHERE hidden = 0 AND job_id IS NOT NULL;
