-- Version 3. Recovery and the seals that are still owed ask for backups by their state.
CREATE INDEX IF NOT EXISTS backups_by_state ON backups (state, id) WHERE hidden = 0;
