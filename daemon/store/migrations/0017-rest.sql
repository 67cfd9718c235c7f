-- Version 17. What a list does not show of a record lies beside it (struct store_record, rest): writers' metadata, documents. A record of
-- before has all of it in doc, is read like that, and comes apart when it is next written.
ALTER TABLE sessions ADD COLUMN rest TEXT;
ALTER TABLE backups ADD COLUMN rest TEXT;
ALTER TABLE quarantine ADD COLUMN rest;
