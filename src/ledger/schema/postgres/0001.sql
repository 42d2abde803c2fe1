-- The books on a server, shared by any number of gateways. Times are Unix ms, amounts ledger units (10^-6 of a currency),
-- days whole days since 1970-01-01 in book.zone. src/ledger/chain.rs says what `hash` and `head` cover. Texts are compared by
-- their bytes, as the gateway does.

CREATE TABLE book (
    one             BIGINT PRIMARY KEY CHECK (one = 1),
    version         BIGINT NOT NULL,
    zone            TEXT   NOT NULL,
    replay_floor_ms BIGINT NOT NULL,
    ledger_id       BYTEA  NOT NULL
);

-- A slot is a gateway's for as long as it renews lease_until, by the server's clock; the next one to have it raises epoch.
CREATE TABLE writers (
    slot        BIGINT PRIMARY KEY,
    epoch       BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    seq         BIGINT NOT NULL,
    batch_seq   BIGINT NOT NULL,
    head        BYTEA  NOT NULL,
    at_ms       BIGINT NOT NULL,
    open_day    BIGINT NOT NULL,
    secret_fps  TEXT COLLATE "C"
);

-- state: r reserved, s settling, u unknown, c captured, o owed, v what is owed is being served, f free again, b burnt.
-- epoch is below zero once its gateway is gone and what became of its answers was looked at.
-- Kept until paid_at_ms is below the replay floor, so that a payment has one life on all gateways.
CREATE TABLE claims (
    key           BYTEA  PRIMARY KEY,
    slot          BIGINT NOT NULL,
    epoch         BIGINT NOT NULL,
    state         TEXT   COLLATE "C" NOT NULL,
    account       TEXT   COLLATE "C" NOT NULL,
    period        BIGINT NOT NULL,
    asset         TEXT   COLLATE "C" NOT NULL,
    amount        BIGINT NOT NULL,
    hard_until_ms BIGINT NOT NULL,
    facilitator   TEXT,
    payload       BYTEA,
    paid_at_ms    BIGINT NOT NULL DEFAULT 0,
    releases      BIGINT NOT NULL DEFAULT 0,
    n             BIGINT NOT NULL DEFAULT 0,
    purchase      BYTEA,
    doubtful      BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
CREATE INDEX claims_of_a_writer ON claims (slot, epoch) WHERE state IN ('r', 's', 'v');
CREATE INDEX claims_captured ON claims (slot, epoch) WHERE state = 'c' AND epoch > 0;
CREATE INDEX claims_by_age ON claims (paid_at_ms);
CREATE INDEX claims_in_doubt ON claims (purchase) WHERE doubtful = 1;
CREATE INDEX claims_unresolved ON claims (key) WHERE state IN ('s', 'u');

CREATE TABLE account_use (
    account TEXT   COLLATE "C" NOT NULL,
    asset   TEXT   COLLATE "C" NOT NULL,
    period  BIGINT NOT NULL,
    used    BIGINT NOT NULL,
    PRIMARY KEY (account, asset, period)
) WITH (fillfactor = 50);

-- n = slot << 48 | seq. key = kind 1, payment key 17 [, number 2].
-- kind: 1 capture 2 void 3 refund 4 intent 5 failed 6 owed 7 topup 8 dispute 9 redelivered.
CREATE TABLE entries (
    n               BIGINT PRIMARY KEY,
    key             BYTEA  NOT NULL UNIQUE,
    kind            BIGINT NOT NULL,
    at_ms           BIGINT NOT NULL,
    wall_ms         BIGINT NOT NULL,
    book_day        BIGINT NOT NULL,
    account         TEXT   COLLATE "C" NOT NULL,
    agent           TEXT   COLLATE "C" NOT NULL,
    agent_key       TEXT   COLLATE "C",
    route           TEXT   COLLATE "C" NOT NULL,
    scheme          TEXT   COLLATE "C" NOT NULL,
    asset           TEXT   COLLATE "C" NOT NULL,
    amount          BIGINT NOT NULL,
    list_amount     BIGINT,
    period          BIGINT NOT NULL,
    table_hash      BYTEA,
    status          BIGINT,
    ref_n           BIGINT,
    method          TEXT,
    target          TEXT,
    target_salt     BYTEA,
    target_digest   BYTEA,
    evidence        BYTEA,
    evidence_digest BYTEA,
    hash            BYTEA  NOT NULL
);

-- n_first and n_last are null in a batch that only carries outcomes.
CREATE TABLE batches (
    slot      BIGINT NOT NULL,
    batch_seq BIGINT NOT NULL,
    n_first   BIGINT,
    n_last    BIGINT,
    at_ms     BIGINT NOT NULL,
    head      BYTEA  NOT NULL,
    outcomes  BYTEA,
    PRIMARY KEY (slot, batch_seq)
);

CREATE TABLE rollups (
    book_day BIGINT NOT NULL,
    account  TEXT   COLLATE "C" NOT NULL,
    agent    TEXT   COLLATE "C" NOT NULL,
    route    TEXT   COLLATE "C" NOT NULL,
    scheme   TEXT   COLLATE "C" NOT NULL,
    asset    TEXT   COLLATE "C" NOT NULL,
    slot     BIGINT NOT NULL,
    captures BIGINT NOT NULL DEFAULT 0,
    captured BIGINT NOT NULL DEFAULT 0,
    voids    BIGINT NOT NULL DEFAULT 0,
    voided   BIGINT NOT NULL DEFAULT 0,
    refunds  BIGINT NOT NULL DEFAULT 0,
    refunded BIGINT NOT NULL DEFAULT 0,
    observed BIGINT NOT NULL DEFAULT 0,
    would_be BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (book_day, account, agent, route, scheme, asset, slot)
) WITH (fillfactor = 50);

CREATE TABLE closes (
    until     BIGINT PRIMARY KEY,
    from_day  BIGINT NOT NULL,
    at_ms     BIGINT NOT NULL,
    heads     BYTEA  NOT NULL,
    signature BYTEA
);

CREATE TABLE statements (
    number      BIGINT PRIMARY KEY,
    account     TEXT   COLLATE "C" NOT NULL,
    asset       TEXT   COLLATE "C" NOT NULL,
    until       BIGINT NOT NULL,
    gross       BIGINT NOT NULL,
    corrections BIGINT NOT NULL,
    total       BIGINT NOT NULL,
    head        BYTEA  NOT NULL,
    UNIQUE (account, asset, until)
);

CREATE TABLE statement_events (
    number BIGINT NOT NULL,
    i      BIGINT NOT NULL,
    state  TEXT   NOT NULL,
    at_ms  BIGINT NOT NULL,
    reason TEXT,
    PRIMARY KEY (number, i)
);

CREATE TABLE keys (
    thumbprint       TEXT   COLLATE "C" NOT NULL,
    agent            TEXT   COLLATE "C" NOT NULL,
    jwk              TEXT   NOT NULL,
    directory_digest BYTEA  NOT NULL,
    seen_ms          BIGINT NOT NULL,
    PRIMARY KEY (thumbprint, agent)
);

CREATE TABLE terms (
    digest    BYTEA  PRIMARY KEY,
    bytes     BYTEA  NOT NULL,
    loaded_ms BIGINT NOT NULL
);
