-- Version 1: the journal of every seller, its seats, the tokens, the budget.
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
