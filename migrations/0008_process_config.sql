-- Up Migration

-- What each process was started with, as a hash over targets, entitlements and roles, so that two that run with different
-- policies notice each other. An addition only: the version before leaves it empty.
ALTER TABLE process ADD COLUMN policy text;

-- Down Migration

ALTER TABLE process DROP COLUMN policy;
