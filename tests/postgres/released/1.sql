-- A database as mlmessages 0.2.0 left it: schema 1, of two sellers, the worker of one of them dead. Never changed.
CREATE SCHEMA mlmessages;
CREATE FUNCTION mlmessages.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()';  -- tests replace it
CREATE TABLE mlmessages.meta (
  one bool PRIMARY KEY DEFAULT true CHECK (one), version int NOT NULL, oldest int NOT NULL   -- oldest program that may use it
);
CREATE TABLE mlmessages.worker (      -- one row a process start; never reused, never deleted while a seller names it
  id uuid PRIMARY KEY, name text NOT NULL, version text NOT NULL,
  since timestamptz NOT NULL, until timestamptz NOT NULL,
  shares bool NOT NULL DEFAULT false    -- it serves an equal share of all sellers: a fleet runs on it
);
CREATE TABLE mlmessages.seller (
  no int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE,
  epoch bigint NOT NULL DEFAULT 0, worker uuid, held_since timestamptz,
  rings bigint NOT NULL DEFAULT 0,    -- something was written that its holder has not seen
  listed_at timestamptz, stopped_until timestamptz NOT NULL DEFAULT '-infinity', stopped text, stops int NOT NULL DEFAULT 0,
  UNIQUE (no, epoch)                  -- makes epoch a key: FOR KEY SHARE keeps a takeover out, and a ring not
) WITH (fillfactor = 50);
CREATE INDEX seller_of ON mlmessages.seller (worker);
CREATE TABLE mlmessages.pack (
  seller int NOT NULL, id text COLLATE "C" NOT NULL, state text NOT NULL CHECK (state IN ('open','issued','done','parked')),
  count bigint NOT NULL, resource text, listed_at float8, not_before timestamptz NOT NULL DEFAULT '-infinity',
  again timestamptz,                  -- a second look, after the one that is owed
  attempts int NOT NULL DEFAULT 0, doubtful bool NOT NULL DEFAULT false, error text, status bytea,
  PRIMARY KEY (seller, id)
) WITH (fillfactor = 70);
CREATE INDEX pack_owed ON mlmessages.pack (seller) WHERE state <> 'done';
CREATE TABLE mlmessages.message (seller int NOT NULL, id text COLLATE "C" NOT NULL, PRIMARY KEY (seller, id));
CREATE TABLE mlmessages.body (
  seq bigint GENERATED ALWAYS AS IDENTITY, seller int NOT NULL, pack text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,
  raw bytea NOT NULL, unread bool NOT NULL, stored timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (seller, id)
);
CREATE INDEX body_of ON mlmessages.body (seller, pack, seq);
CREATE TABLE mlmessages.notification (
  seller int NOT NULL, id text COLLATE "C" NOT NULL, tries int NOT NULL DEFAULT 0, not_before timestamptz NOT NULL,
  parked bool NOT NULL DEFAULT false, PRIMARY KEY (seller, id)
);
CREATE TABLE mlmessages.letter (        -- what a handler failed at, to be handed over again
  seller int NOT NULL, pack text COLLATE "C" NOT NULL, tries int NOT NULL, not_before timestamptz NOT NULL, error text NOT NULL,
  PRIMARY KEY (seller, pack)
);
CREATE TABLE mlmessages.buried (        -- dead letters
  seller int NOT NULL, id text COLLATE "C" NOT NULL, error text NOT NULL, PRIMARY KEY (seller, id));
CREATE TABLE mlmessages.once (          -- what happened once for a message, by name
  seller int NOT NULL, id text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, PRIMARY KEY (seller, id, name)
);
CREATE TABLE mlmessages.token (
  seller int PRIMARY KEY, generation bigint NOT NULL, data bytea NOT NULL, locked_by uuid, locked_until timestamptz NOT NULL DEFAULT '-infinity'
);
CREATE TABLE mlmessages.budget (
  app text COLLATE "C", kind text, size int NOT NULL, period float8 NOT NULL, paused_until timestamptz NOT NULL DEFAULT '-infinity',
  paused_at timestamptz NOT NULL DEFAULT '-infinity', rounds int NOT NULL DEFAULT 0, storm bool NOT NULL DEFAULT false,
  probe_until timestamptz NOT NULL DEFAULT '-infinity', PRIMARY KEY (app, kind)
);
CREATE TABLE mlmessages.permit (
  app text COLLATE "C", kind text, no int, turn bigint NOT NULL DEFAULT 0, free_at timestamptz NOT NULL DEFAULT '-infinity',
  PRIMARY KEY (app, kind, no)
) WITH (fillfactor = 40);
CREATE TABLE mlmessages.duty (name text PRIMARY KEY, due timestamptz NOT NULL DEFAULT '-infinity');
CREATE VIEW mlmessages.overview AS
  SELECT s.id AS seller, w.name AS holder, w.until > mlmessages.clock() AS alive, s.stopped, s.listed_at,
    p.owed, p.issued, p.waiting, p.parked, b.undelivered, b.oldest_undelivered, d.dead, n.unknown_notifications
  FROM mlmessages.seller s LEFT JOIN mlmessages.worker w ON w.id = s.worker,
  LATERAL (SELECT count(*) FILTER (WHERE state IN ('open','issued')) AS owed, count(*) FILTER (WHERE state = 'issued') AS issued,
      count(*) FILTER (WHERE state = 'open' AND not_before > mlmessages.clock()) AS waiting, count(*) FILTER (WHERE state = 'parked') AS parked
      FROM mlmessages.pack WHERE seller = s.no AND state <> 'done') p,
  LATERAL (SELECT count(*) AS undelivered, min(stored) AS oldest_undelivered FROM mlmessages.body WHERE seller = s.no) b,
  LATERAL (SELECT count(*) AS dead FROM mlmessages.buried WHERE seller = s.no) d,
  LATERAL (SELECT count(*) AS unknown_notifications FROM mlmessages.notification WHERE seller = s.no AND NOT parked) n;
INSERT INTO mlmessages.meta VALUES (true, 1, 1);
INSERT INTO mlmessages.worker (id, name, version, since, until, shares) VALUES
  ('11111111-1111-4111-8111-111111111111', 'machine-1', '0.2.0', '2026-11-26 12:00+00', '2026-11-26 13:00+00', true);
INSERT INTO mlmessages.seller (id, epoch, worker, held_since, rings, listed_at, stopped_until, stopped, stops) VALUES
  ('700100200', 3, '11111111-1111-4111-8111-111111111111', '2026-11-26 12:00+00', 5, '2026-11-26 12:59+00', '-infinity', NULL, 0),
  ('700100201', 1, NULL, NULL, 0, NULL, '2126-11-26 12:00+00', 'invalid_grant', 2);
INSERT INTO mlmessages.pack (seller, id, state, count, resource, listed_at, not_before, again, attempts, doubtful, error, status) VALUES
  (1, '2000000000000001', 'open', 2, '/packs/2000000000000001/sellers/700100200', 1795696740, '-infinity', NULL, 0, false, NULL, NULL),
  (1, '2000000000000002', 'issued', 1, NULL, NULL, '-infinity', NULL, 0, false, NULL, NULL),
  (1, '2000000000000003', 'done', 1, NULL, NULL, '-infinity', NULL, 0, false, NULL, '{"status":"active"}'),
  (1, '2000000000000004', 'parked', 1, NULL, NULL, '2126-11-26 12:00+00', NULL, 1, false, '["StillListed", "hidden", {"problems": []}]', NULL),
  (1, '2000000000000005', 'open', 1, NULL, NULL, '2126-11-26 12:00+00', '2126-11-26 12:00+00', 0, true, NULL, NULL);
INSERT INTO mlmessages.message (seller, id) VALUES (1, 'a'), (1, 'b'), (1, 'c'), (1, 'acknowledged');
INSERT INTO mlmessages.body (seller, pack, id, raw, unread, stored) VALUES
  (1, '2000000000000003', 'a', '\x007b226964223a2261227d', true, '2026-11-26 12:58+00'),
  (1, '2000000000000003', 'b', '\x007b226964223a2262227d', false, '2026-11-26 12:58+00'),
  (1, '2000000000000004', 'c', '\x007b226964223a2263227d', true, '2026-11-26 12:58+00');
INSERT INTO mlmessages.token (seller, generation, data) VALUES (1, 4, '\x00'::bytea || convert_to(
  '{"version": 1, "user_id": "700100200", "access_token": "APP_USR-1", "refresh_token": "TG-1", "expires_at": "2026-11-26T18:00:00+00:00"}', 'UTF8'));
INSERT INTO mlmessages.notification (seller, id, tries, not_before, parked) VALUES
  (1, 'notified', 1, '2026-11-26 12:59+00', false), (1, 'never found', 7, '2126-11-26 12:59+00', true);
INSERT INTO mlmessages.letter (seller, pack, tries, not_before, error) VALUES (1, '2000000000000003', 2, '-infinity', 'KeyError');
INSERT INTO mlmessages.buried (seller, id, error) VALUES (1, 'c', 'ValueError');
INSERT INTO mlmessages.once (seller, id, name) VALUES (1, 'acknowledged', 'reply');
INSERT INTO mlmessages.duty (name, due) VALUES ('sweep', '2026-11-26 13:30+00');
INSERT INTO mlmessages.budget (app, kind, size, period) VALUES ('1', 'read', 500, 60);
INSERT INTO mlmessages.permit (app, kind, no, turn) SELECT '1', 'read', n, 7 FROM generate_series(1, 500) n;
