-- Up Migration

-- Who does what only one process may do at a time, and the deletion of what is over. Additions only: the version before goes on
-- working beside it.

-- A duty is held for a few seconds at a time, by PostgreSQL's clock. Each time that it changes hands, or is taken again after it ran out, its epoch
-- grows by one: what its holder writes is compared with that epoch, so that one who slept writes nothing.
CREATE TABLE duty (
  name text PRIMARY KEY,
  epoch bigint NOT NULL DEFAULT 0,
  -- The id that the process has in the table of processes.
  holder text,
  held_until timestamptz,
  taken_at timestamptz,
  -- When a run of it last ended well.
  done_at timestamptz,
  CONSTRAINT duty_held_is_whole CHECK ((holder IS NULL) = (held_until IS NULL) AND (holder IS NULL OR taken_at IS NOT NULL))
);
INSERT INTO duty (name) VALUES ('seal-audit'), ('expire-grants'), ('prune');
-- The names are these: nobody adds one while Halligan runs.
GRANT SELECT, UPDATE ON duty TO halligan_app;

-- Which entries of the log were deleted, by the owner's role, after they had been exported: all below end_index. The
-- hashes of the entries, the nodes and the checkpoints stay.
CREATE TABLE audit_pruned (
  end_index bigint PRIMARY KEY,
  first_index bigint NOT NULL,
  export_sha256 text NOT NULL,
  before timestamptz NOT NULL,
  pruned_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT audit_pruned_is_a_range CHECK (first_index >= 0 AND end_index > first_index)
);
GRANT SELECT ON audit_pruned TO halligan_app;

-- Keys of requests that were sent once are of no use after a month.
CREATE INDEX idempotency_by_age ON idempotency (created_at);
CREATE INDEX request_by_decision ON request (decided_at) WHERE state <> 'pending';
-- What refers to a grant or a lease is looked for when one is deleted.
CREATE INDEX notice_of_grant ON notice (grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX notice_of_lease ON notice (lease_id) WHERE lease_id IS NOT NULL;

-- Whether everything about a request is over since before a time: decided, its grant ended, every lease read back as gone, its review
-- closed, nothing left to tell.
CREATE FUNCTION request_over_since(request_id text, cutoff timestamptz) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM public.request r WHERE r.id = $1 AND r.state <> 'pending' AND r.decided_at < $2)
    AND NOT EXISTS (SELECT FROM public.access_grant g WHERE g.request_id = $1
      AND (g.state NOT IN ('ended', 'cancelled') OR g.ended_at >= $2
        OR EXISTS (SELECT FROM public.lease l WHERE l.grant_id = g.id AND (l.state NOT IN ('revoked', 'void') OR l.read_back_at >= $2))
        OR EXISTS (SELECT FROM public.review v WHERE v.grant_id = g.id AND (v.state <> 'closed' OR v.closed_at >= $2))))
    AND NOT EXISTS (SELECT FROM public.notice n WHERE n.request_id = $1 AND n.spread_at IS NULL)
    AND NOT EXISTS (SELECT FROM public.delivery d WHERE d.request_id = $1 AND d.state = 'waiting')
$$;

-- The application's role may not delete what people asked for and got. This does it for that role, and looks itself whether it is over
-- and old enough. At most a thousand requests at once, those decided first; one that somebody has locked is left for the next time.
CREATE FUNCTION prune_history(keep interval, most integer)
  RETURNS TABLE (requests bigint, decisions bigint, grants bigint, leases bigint, reviews bigint, notices bigint, deliveries bigint)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  over text[];
  their_grants text[];
BEGIN
  IF keep IS NULL OR keep < interval '30 days' THEN
    RAISE EXCEPTION 'what people asked for is kept for thirty days at least' USING ERRCODE = 'check_violation', CONSTRAINT = 'history_kept_thirty_days';
  END IF;
  over := ARRAY(SELECT r.id FROM public.request r
    WHERE r.state <> 'pending' AND r.decided_at < now() - keep AND public.request_over_since(r.id, now() - keep)
    ORDER BY r.decided_at LIMIT least(greatest(most, 0), 1000) FOR UPDATE SKIP LOCKED);
  their_grants := ARRAY(SELECT g.id FROM public.access_grant g WHERE g.request_id = ANY (over));
  requests := cardinality(over);
  DELETE FROM public.delivery d WHERE d.request_id = ANY (over);
  GET DIAGNOSTICS deliveries = ROW_COUNT;
  DELETE FROM public.notice n WHERE n.request_id = ANY (over);
  GET DIAGNOSTICS notices = ROW_COUNT;
  DELETE FROM public.slack_handle h WHERE h.request_id = ANY (over) OR h.grant_id = ANY (their_grants);
  DELETE FROM public.idempotency i WHERE i.object_id = ANY (over);
  DELETE FROM public.review v WHERE v.grant_id = ANY (their_grants);
  GET DIAGNOSTICS reviews = ROW_COUNT;
  DELETE FROM public.lease l WHERE l.grant_id = ANY (their_grants);
  GET DIAGNOSTICS leases = ROW_COUNT;
  DELETE FROM public.access_grant g WHERE g.id = ANY (their_grants);
  GET DIAGNOSTICS grants = ROW_COUNT;
  DELETE FROM public.decision d WHERE d.request_id = ANY (over);
  GET DIAGNOSTICS decisions = ROW_COUNT;
  DELETE FROM public.request r WHERE r.id = ANY (over);
  RETURN NEXT;
END $$;
REVOKE ALL ON FUNCTION prune_history (interval, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prune_history (interval, integer) TO halligan_app;

-- Down Migration

DROP FUNCTION prune_history (interval, integer);
DROP FUNCTION request_over_since (text, timestamptz);
DROP INDEX notice_of_lease;
DROP INDEX notice_of_grant;
DROP INDEX request_by_decision;
DROP INDEX idempotency_by_age;
DROP TABLE audit_pruned;
DROP TABLE duty;
