-- The books. Times are Unix ms, amounts ledger units (10^-6 of a currency), days whole days since 1970-01-01 in
-- book.zone. src/ledger/chain.rs says what `hash` and `head` cover.

CREATE TABLE book (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    version         INTEGER NOT NULL,
    zone            TEXT    NOT NULL,
    replay_floor_ms INTEGER NOT NULL,
    ledger_id       BLOB    NOT NULL
) STRICT;

CREATE TABLE writers (
    slot        INTEGER PRIMARY KEY,
    epoch       INTEGER NOT NULL,
    lease_until INTEGER,
    seq         INTEGER NOT NULL,
    batch_seq   INTEGER NOT NULL,
    head        BLOB    NOT NULL,
    at_ms       INTEGER NOT NULL,
    open_day    INTEGER NOT NULL,
    secret_fps  TEXT
) STRICT;

-- state: r reserved, s settling, u unknown, c captured.
CREATE TABLE claims (
    key           BLOB    PRIMARY KEY,
    slot          INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    state         TEXT    NOT NULL,
    account       TEXT    NOT NULL,
    period        INTEGER NOT NULL,
    asset         TEXT    NOT NULL,
    amount        INTEGER NOT NULL,
    hard_until_ms INTEGER NOT NULL,
    facilitator   TEXT,
    payload       BLOB
) STRICT, WITHOUT ROWID;

CREATE TABLE account_use (
    account TEXT    NOT NULL,
    asset   TEXT    NOT NULL,
    period  INTEGER NOT NULL,
    used    INTEGER NOT NULL,
    PRIMARY KEY (account, asset, period)
) STRICT, WITHOUT ROWID;

-- n = slot << 48 | seq. key = kind 1, payment key 17 [, number 2].
-- kind: 1 capture 2 void 3 refund 4 intent 5 failed 6 owed 7 topup 8 dispute 9 redelivered.
CREATE TABLE entries (
    n               INTEGER PRIMARY KEY,
    key             BLOB    NOT NULL UNIQUE,
    kind            INTEGER NOT NULL,
    at_ms           INTEGER NOT NULL,
    wall_ms         INTEGER NOT NULL,
    book_day        INTEGER NOT NULL,
    account         TEXT    NOT NULL,
    agent           TEXT    NOT NULL,
    agent_key       TEXT,
    route           TEXT    NOT NULL,
    scheme          TEXT    NOT NULL,
    asset           TEXT    NOT NULL,
    amount          INTEGER NOT NULL,
    list_amount     INTEGER,
    period          INTEGER NOT NULL,
    table_hash      BLOB,
    status          INTEGER,
    ref_n           INTEGER,
    method          TEXT,
    target          TEXT,
    target_salt     BLOB,
    target_digest   BLOB,
    evidence        BLOB,
    evidence_digest BLOB,
    hash            BLOB    NOT NULL
) STRICT;

-- n_first and n_last are null in a batch that only carries outcomes.
CREATE TABLE batches (
    slot      INTEGER NOT NULL,
    batch_seq INTEGER NOT NULL,
    n_first   INTEGER,
    n_last    INTEGER,
    at_ms     INTEGER NOT NULL,
    head      BLOB    NOT NULL,
    outcomes  BLOB,
    PRIMARY KEY (slot, batch_seq)
) STRICT;

CREATE TABLE rollups (
    book_day INTEGER NOT NULL,
    account  TEXT    NOT NULL,
    agent    TEXT    NOT NULL,
    route    TEXT    NOT NULL,
    scheme   TEXT    NOT NULL,
    asset    TEXT    NOT NULL,
    slot     INTEGER NOT NULL,
    captures INTEGER NOT NULL DEFAULT 0,
    captured INTEGER NOT NULL DEFAULT 0,
    voids    INTEGER NOT NULL DEFAULT 0,
    voided   INTEGER NOT NULL DEFAULT 0,
    refunds  INTEGER NOT NULL DEFAULT 0,
    refunded INTEGER NOT NULL DEFAULT 0,
    observed INTEGER NOT NULL DEFAULT 0,
    would_be INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (book_day, account, agent, route, scheme, asset, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE closes (
    until     INTEGER PRIMARY KEY,
    from_day  INTEGER NOT NULL,
    at_ms     INTEGER NOT NULL,
    heads     BLOB    NOT NULL,
    signature BLOB
) STRICT;

CREATE TABLE statements (
    number      INTEGER PRIMARY KEY,
    account     TEXT    NOT NULL,
    asset       TEXT    NOT NULL,
    until       INTEGER NOT NULL,
    gross       INTEGER NOT NULL,
    corrections INTEGER NOT NULL,
    total       INTEGER NOT NULL,
    head        BLOB    NOT NULL,
    UNIQUE (account, asset, until)
) STRICT;

CREATE TABLE statement_events (
    number INTEGER NOT NULL,
    i      INTEGER NOT NULL,
    state  TEXT    NOT NULL,
    at_ms  INTEGER NOT NULL,
    reason TEXT,
    PRIMARY KEY (number, i)
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    thumbprint       TEXT    NOT NULL,
    agent            TEXT    NOT NULL,
    jwk              TEXT    NOT NULL,
    directory_digest BLOB    NOT NULL,
    seen_ms          INTEGER NOT NULL,
    PRIMARY KEY (thumbprint, agent)
) STRICT, WITHOUT ROWID;

CREATE TABLE terms (
    digest    BLOB    PRIMARY KEY,
    bytes     BLOB    NOT NULL,
    loaded_ms INTEGER NOT NULL
) STRICT;
