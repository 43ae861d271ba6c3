# ruff: noqa: S608 -- what is put together are constants of this file
"""The SQL of the journal. ``mlmessages.`` stands for the schema, whose name is a setting.

Text is compared bytewise (the columns say so), what may hold any byte is bytea, and every moment is the database's:
parameters are waits in seconds.
"""

from __future__ import annotations

from typing import Final

# For this transaction alone, which is safe behind PgBouncer: durable, and never stuck.
SETTINGS: Final = """
SELECT set_config('synchronous_commit', 'on', true), set_config('statement_timeout', '5s', true),
 set_config('lock_timeout', '2s', true), set_config('idle_in_transaction_session_timeout', '5s', true)"""

_MOMENT: Final = """CASE WHEN %(wait)s::float8 > 0 THEN mlmessages.clock() + %(wait)s::float8 * interval '1 s'
 ELSE '-infinity' END"""
# Infinite moments cannot be subtracted before PostgreSQL 17.
_WAIT: Final = "greatest(coalesce(extract(epoch FROM nullif({}, '-infinity') - mlmessages.clock()), 0), 0)::float8"
_NOT_BEFORE: Final = _WAIT.format("not_before")

# -- seats --

ADD_SELLER: Final = "INSERT INTO mlmessages.seller (id) VALUES (%(seller)s) ON CONFLICT DO NOTHING"
REGISTER: Final = """
INSERT INTO mlmessages.worker (id, name, version, since, until) VALUES (%(worker)s::uuid, %(name)s, %(version)s,
 mlmessages.clock(), mlmessages.clock() + %(lease)s::float8 * interval '1 s')"""
RENEW: Final = """
UPDATE mlmessages.worker SET until = mlmessages.clock() + %(lease)s::float8 * interval '1 s'
 WHERE id = %(worker)s::uuid RETURNING 1"""
SEATS: Final = "SELECT no, id, epoch, rings FROM mlmessages.seller WHERE worker = %(worker)s::uuid ORDER BY no"
SHARE: Final = "UPDATE mlmessages.worker SET shares = %(shares)s::bool WHERE id = %(worker)s::uuid"
COUNT: Final = """
SELECT (SELECT count(*) FROM mlmessages.seller WHERE stopped_until <= mlmessages.clock()),
 (SELECT count(*) FROM mlmessages.worker WHERE shares AND until > mlmessages.clock())"""
# `free` may have chosen a seat that another worker took a moment later: with the lock it sees the new row, and joins no
# holder to it. So `taken` asks again whether the holder lives.
TAKE: Final = """
WITH free AS (
  SELECT s.no, w.until FROM mlmessages.seller s LEFT JOIN mlmessages.worker w ON w.id = s.worker
  WHERE (w.id IS NULL OR w.until <= mlmessages.clock())
   AND CASE WHEN %(seller)s::text IS NULL THEN s.stopped_until <= mlmessages.clock() ELSE s.id = %(seller)s::text END
  ORDER BY s.listed_at NULLS FIRST, s.no LIMIT %(most)s::int FOR UPDATE OF s SKIP LOCKED),
 taken AS (UPDATE mlmessages.seller s SET epoch = s.epoch + 1, worker = %(worker)s::uuid,
   held_since = mlmessages.clock()
  FROM free WHERE s.no = free.no
   AND NOT EXISTS (SELECT FROM mlmessages.worker w WHERE w.id = s.worker AND w.until > mlmessages.clock())
  RETURNING s.no, s.id, s.epoch, s.rings, s.listed_at, coalesce(free.until, mlmessages.clock()) AS ended)
 SELECT no, id, epoch, rings, ended FROM taken ORDER BY listed_at NULLS FIRST, no"""
# A statement of its own, after the seats are locked: one that began before would not see a claim that was committed
# while it waited for the lock, and would leave that claim standing.
REOPEN_CLAIMS_OF: Final = """
UPDATE mlmessages.pack p SET state = 'open', doubtful = true,
  not_before = taken.ended + %(settle_time)s::float8 * interval '1 s',
  again = mlmessages.clock() + %(second_look)s::float8 * interval '1 s'
 FROM unnest(%(nos)s::int[], %(ended)s::timestamptz[]) taken(no, ended)
 WHERE p.seller = taken.no AND p.state = 'issued' RETURNING p.seller"""
STOP: Final = """
UPDATE mlmessages.seller SET stopped = %(reason)s, stops = stops + 1,
 stopped_until = mlmessages.clock() + least(24, 2 ^ stops) * interval '1 hour' WHERE no = %(s)s::int
 RETURNING extract(epoch FROM stopped_until - mlmessages.clock())::float8"""
RESUME: Final = """
UPDATE mlmessages.seller SET stopped = NULL, stops = 0, stopped_until = '-infinity' WHERE id = %(seller)s"""
EMPTY: Final = tuple(
    f"DELETE FROM mlmessages.{table} WHERE seller = (SELECT no FROM mlmessages.seller WHERE id = %(seller)s)"
    for table in ("token", "once", "buried", "letter", "notification", "body", "message", "pack")
)
REMOVE: Final = "DELETE FROM mlmessages.seller WHERE id = %(seller)s RETURNING 1"
SELLERS: Final = """
SELECT s.id, w.name, CASE WHEN s.stopped_until > mlmessages.clock() THEN s.stopped END FROM mlmessages.seller s
 LEFT JOIN mlmessages.worker w ON w.id = s.worker AND w.until > mlmessages.clock() ORDER BY s.no"""
OVERVIEW: Final = """
SELECT seller, holder, coalesce(alive, false), stopped, listed_at, owed, issued, waiting, parked, undelivered,
 oldest_undelivered, dead, unknown_notifications FROM mlmessages.overview ORDER BY seller"""
RELEASE: Final = """
UPDATE mlmessages.seller SET worker = NULL WHERE no = %(no)s::int AND epoch = %(epoch)s::bigint
 AND worker = %(worker)s::uuid"""
HOLDER: Final = """
SELECT w.name FROM mlmessages.seller s JOIN mlmessages.worker w ON w.id = s.worker
 WHERE s.id = %(seller)s AND w.until > mlmessages.clock()"""
# The key of a seat is its number and its epoch: this lock keeps a takeover out until the transaction ends, and lets
# rings and listing times pass.
HOLD: Final = """
SELECT s.no, s.epoch FROM mlmessages.seller s
 JOIN unnest(%(sellers)s::int[], %(epochs)s::bigint[]) f(no, epoch) USING (no, epoch)
 ORDER BY s.no FOR KEY SHARE OF s"""
NUMBER: Final = "SELECT no FROM mlmessages.seller WHERE id = %(seller)s"
# In the order of the sellers, as all processes do.
RING: Final = """
UPDATE mlmessages.seller s SET rings = rings + 1 FROM (SELECT no FROM mlmessages.seller
  WHERE no = ANY(%(nos)s::int[]) ORDER BY no FOR NO KEY UPDATE) rung WHERE s.no = rung.no"""

# -- packs --

LISTED_AT: Final = "UPDATE mlmessages.seller SET listed_at = mlmessages.clock() WHERE no = %(s)s::int"
LISTED: Final = """
INSERT INTO mlmessages.pack AS k (seller, id, state, count, resource, listed_at)
 SELECT %(s)s::int, id, 'open', count, resource, %(at)s::float8
  FROM unnest(%(ids)s::text[], %(counts)s::bigint[], %(resources)s::text[]) f(id, count, resource) ORDER BY id
 ON CONFLICT (seller, id) DO UPDATE SET resource = excluded.resource,
  count = CASE WHEN k.state = 'parked' AND excluded.count <> 0 THEN k.count ELSE excluded.count END,
  listed_at = CASE WHEN k.state = 'done' THEN excluded.listed_at ELSE k.listed_at END,
  doubtful = k.doubtful AND k.state <> 'done', attempts = CASE WHEN k.state = 'done' THEN 0 ELSE k.attempts END,
  state = CASE WHEN k.state = 'done' THEN 'open' ELSE k.state END"""
# A second look is a request that was claimed when it was due: `again` is there until then, however often it is read.
CLAIM: Final = """
INSERT INTO mlmessages.pack AS k (seller, id, state, count) VALUES (%(s)s::int, %(p)s, 'issued', 0)
 ON CONFLICT (seller, id) DO UPDATE SET state = 'issued',
  again = CASE WHEN k.again > mlmessages.clock() THEN k.again END"""
REOPEN: Final = f"""
UPDATE mlmessages.pack SET state = 'open', not_before = {_MOMENT}, doubtful = %(unknown)s::bool
 WHERE seller = %(s)s::int AND id = %(p)s"""
PARK: Final = f"""
UPDATE mlmessages.pack SET state = 'parked', count = %(count)s::bigint, not_before = {_MOMENT},
 attempts = %(attempts)s::int, error = %(error)s, doubtful = %(unknown)s::bool
 WHERE seller = %(s)s::int AND id = %(p)s"""
REOPEN_CLAIMS: Final = f"""
WITH opened AS (UPDATE mlmessages.pack SET state = 'open', doubtful = true, not_before = {_MOMENT}
 WHERE seller = %(s)s::int AND state = 'issued' RETURNING 1) SELECT count(*) FROM opened"""
IDS: Final = """
WITH given AS (SELECT * FROM unnest(%(ids)s::text[], %(raws)s::bytea[], %(unread)s::bool[])
  WITH ORDINALITY g(id, raw, unread, n)),
 fresh AS (INSERT INTO mlmessages.message (seller, id) SELECT %(s)s::int, id FROM given
  WHERE EXISTS (SELECT FROM mlmessages.seller WHERE no = %(s)s::int) ORDER BY id ON CONFLICT DO NOTHING RETURNING id),
 gone AS (DELETE FROM mlmessages.notification WHERE seller = %(s)s::int AND id = ANY(%(gone)s::text[])),
 kept AS (INSERT INTO mlmessages.body (seller, pack, id, raw, unread)
  SELECT %(s)s::int, %(p)s, g.id, g.raw, g.unread FROM given g JOIN fresh USING (id) ORDER BY n)
 SELECT id FROM fresh"""
DONE: Final = """
UPDATE mlmessages.pack SET state = CASE WHEN again IS NULL AND %(again)s::float8 IS NULL THEN 'done' ELSE 'open' END,
 not_before = coalesce(mlmessages.clock() + %(again)s::float8 * interval '1 s', again, '-infinity'),
 doubtful = again IS NOT NULL OR %(again)s::float8 IS NOT NULL,
 attempts = 0, error = NULL, status = %(status)s::bytea
 WHERE seller = %(s)s::int AND id = %(p)s AND state = 'issued'
 RETURNING state, greatest(extract(epoch FROM nullif(not_before, '-infinity') - mlmessages.clock()), 0)::float8"""
ACK: Final = "DELETE FROM mlmessages.body WHERE seller = %(s)s::int AND id = ANY(%(ids)s::text[])"
ROWS: Final = f"""
SELECT id, state, count, resource, listed_at, {_NOT_BEFORE}, attempts, doubtful, error,
 state = 'open' AND again IS NOT DISTINCT FROM not_before
 FROM mlmessages.pack WHERE seller = %(s)s::int AND state <> 'done' ORDER BY id"""
UNDELIVERED: Final = """
SELECT pack FROM mlmessages.body WHERE seller = %(s)s::int GROUP BY pack ORDER BY min(seq)"""
ENTRIES: Final = """
SELECT id, raw, unread FROM mlmessages.body WHERE seller = %(s)s::int AND pack = %(p)s ORDER BY seq"""
STATUS: Final = "SELECT status FROM mlmessages.pack WHERE seller = %(s)s::int AND id = %(p)s"

# -- what the handler failed at --

POSTPONE: Final = f"""
INSERT INTO mlmessages.letter (seller, pack, tries, not_before, error)
 VALUES (%(s)s::int, %(p)s, %(tries)s::int, {_MOMENT}, %(error)s)
 ON CONFLICT (seller, pack) DO UPDATE SET tries = excluded.tries, not_before = excluded.not_before,
  error = excluded.error"""
DELIVERED: Final = "DELETE FROM mlmessages.letter WHERE seller = %(s)s::int AND pack = %(p)s"
DEAD: Final = """
INSERT INTO mlmessages.buried (seller, id, error) SELECT %(s)s::int, id, %(error)s FROM unnest(%(ids)s::text[]) f(id)
 ON CONFLICT (seller, id) DO UPDATE SET error = excluded.error"""
RETRY_DEAD: Final = """
WITH dead AS (DELETE FROM mlmessages.buried WHERE seller = %(s)s::int RETURNING id),
 alive AS (SELECT b.pack FROM dead JOIN mlmessages.body b ON b.seller = %(s)s::int AND b.id = dead.id),
 again AS (INSERT INTO mlmessages.letter (seller, pack, tries, not_before, error)
  SELECT DISTINCT %(s)s::int, pack, 0, '-infinity'::timestamptz, '' FROM alive
  ON CONFLICT (seller, pack) DO UPDATE SET tries = 0, not_before = '-infinity', error = '')
 SELECT count(*) FROM alive"""
LETTERS: Final = f"""
SELECT pack, tries, {_NOT_BEFORE}, error FROM mlmessages.letter WHERE seller = %(s)s::int ORDER BY pack"""
DEAD_LETTERS: Final = """
SELECT d.id, b.pack, d.error FROM mlmessages.buried d JOIN mlmessages.body b ON b.seller = d.seller AND b.id = d.id
 WHERE d.seller = %(s)s::int ORDER BY b.seq"""

# -- what notifications named --

NOTICE: Final = """
WITH s AS (SELECT no FROM mlmessages.seller WHERE id = %(seller)s),
 known AS (SELECT EXISTS (SELECT FROM mlmessages.message m WHERE m.seller = s.no AND m.id = %(id)s)
  OR EXISTS (SELECT FROM mlmessages.notification n WHERE n.seller = s.no AND n.id = %(id)s) AS yes FROM s),
 full_ AS (SELECT count(*) >= %(most)s::int AS yes FROM s JOIN mlmessages.notification n ON n.seller = s.no),
 added AS (INSERT INTO mlmessages.notification (seller, id, not_before)
  SELECT s.no, %(id)s, mlmessages.clock() + %(wait)s::float8 * interval '1 s' FROM s, known, full_
   WHERE NOT known.yes AND NOT full_.yes ON CONFLICT DO NOTHING RETURNING seller)
 SELECT (SELECT no FROM s), (SELECT yes FROM known), (SELECT yes FROM full_), (SELECT count(*) FROM added)"""
FORGET_KNOWN: Final = """
DELETE FROM mlmessages.notification n WHERE seller = %(s)s::int
 AND EXISTS (SELECT FROM mlmessages.message m WHERE m.seller = n.seller AND m.id = n.id)"""
FORGET_OLDEST: Final = """
DELETE FROM mlmessages.notification WHERE seller = %(s)s::int AND id IN (SELECT id FROM mlmessages.notification
 WHERE seller = %(s)s::int AND parked ORDER BY not_before LIMIT %(most)s::int)"""
LATER: Final = f"""
UPDATE mlmessages.notification SET tries = %(tries)s::int, not_before = {_MOMENT}, parked = %(parked)s::bool
 WHERE seller = %(s)s::int AND id = %(id)s"""
SETTLE: Final = """
WITH known AS (SELECT id FROM mlmessages.message WHERE seller = %(s)s::int AND id = ANY(%(ids)s::text[])),
 gone AS (DELETE FROM mlmessages.notification n USING known WHERE n.seller = %(s)s::int AND n.id = known.id)
 SELECT id FROM known"""
CHECKS: Final = f"""
SELECT id, tries, {_NOT_BEFORE}, parked FROM mlmessages.notification WHERE seller = %(s)s::int
 ORDER BY notification.not_before"""
FORGET_CHECKS: Final = """
DELETE FROM mlmessages.notification WHERE seller = %(s)s::int AND parked
 AND not_before < mlmessages.clock() - %(wait)s::float8 * interval '1 s'"""
ONCE: Final = """
WITH done AS (INSERT INTO mlmessages.once (seller, id, name)
 SELECT %(s)s::int, id, %(name)s FROM unnest(%(ids)s::text[]) f(id) ORDER BY id ON CONFLICT DO NOTHING RETURNING 1)
 SELECT count(*) FROM done"""
UNDO_ONCE: Final = """
DELETE FROM mlmessages.once WHERE seller = %(s)s::int AND id = ANY(%(ids)s::text[]) AND name = %(name)s"""

# -- what is swept, by the worker that finds it due --

DUE: Final = """
INSERT INTO mlmessages.duty AS d (name, due) VALUES (%(duty)s, mlmessages.clock() + %(every)s::float8 * interval '1 s')
 ON CONFLICT (name) DO UPDATE SET due = excluded.due WHERE d.due <= mlmessages.clock() RETURNING 1"""
SWEEP_PACKS: Final = """
DELETE FROM mlmessages.pack p WHERE ctid IN (SELECT ctid FROM mlmessages.pack q WHERE state = 'done' AND again IS NULL
  AND NOT EXISTS (SELECT FROM mlmessages.body b WHERE b.seller = q.seller AND b.pack = q.id) LIMIT 10000)"""
SWEEP_DEAD: Final = """
DELETE FROM mlmessages.buried d
 WHERE NOT EXISTS (SELECT FROM mlmessages.body b WHERE b.seller = d.seller AND b.id = d.id)"""
SWEEP_CHECKS: Final = """
DELETE FROM mlmessages.notification WHERE parked AND not_before < mlmessages.clock() - interval '7 days'"""
SWEEP_WORKERS: Final = """
DELETE FROM mlmessages.worker w WHERE until < mlmessages.clock() - interval '1 day'
 AND NOT EXISTS (SELECT FROM mlmessages.seller s WHERE s.worker = w.id)"""
