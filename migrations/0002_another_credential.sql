-- Up Migration

-- A claim of what is claimed already makes one more credential of the same lease where the target can (lease.again in the
-- log), so leases of one entitlement no longer live side by side.
--
-- Expand: the version before this one may still run. It writes may_overlap and, for AWS, keeps several live leases of an
-- entitlement, so the column stays, with its default, and lease_one_live_per_entitlement stays as it is: this version only
-- writes the default, for which that index holds without exception. Once no older version runs and none of its leases is
-- live, a later migration drops the column and makes the index anew without it.
COMMENT ON COLUMN lease.may_overlap IS 'not used any more; a later migration drops it';

-- Leases of every kind are ended at their own end, where that comes before their grant's.
DROP INDEX lease_over;
CREATE INDEX lease_over ON lease (expires_at) WHERE state = 'live';

-- Down Migration

DROP INDEX lease_over;
CREATE INDEX lease_over ON lease (expires_at) WHERE state = 'live' AND may_overlap;
COMMENT ON COLUMN lease.may_overlap IS NULL;
