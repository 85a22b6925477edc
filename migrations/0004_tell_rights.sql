-- Up Migration

-- What was told of a request is deleted when nothing was new about it for thirty days; the audit log keeps what happened.
GRANT DELETE ON notice, delivery TO halligan_app;
CREATE INDEX notice_by_age ON notice (created_at);

-- Down Migration

DROP INDEX notice_by_age;
REVOKE DELETE ON notice, delivery FROM halligan_app;
