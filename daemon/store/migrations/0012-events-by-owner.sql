-- Version 12. Whose an event is, for those who see their own only; a job's events are read on their own.
ALTER TABLE events ADD COLUMN owner TEXT;
UPDATE events SET owner = coalesce((SELECT owner FROM jobs WHERE jobs.id = events.job_id), (SELECT owner FROM sessions WHERE sessions.id = events.session_id));
CREATE INDEX events_by_job ON events (job_id, id) WHERE job_id IS NOT NULL;
