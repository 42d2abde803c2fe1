-- What archives have taken over: the entries and batches of a writer from first_* to last_*, in a file of that digest.
-- dropped: evidence (targets and evidence of these entries) or rows (all of it). Up to done_seq it is dropped already.
-- head_before and head are the chain's before and after; state is what it had added up to there. src/ledger/archive/mod.rs
CREATE TABLE archives (
    slot        INTEGER NOT NULL,
    last_batch  INTEGER NOT NULL,
    dropped     TEXT    NOT NULL,
    first_batch INTEGER NOT NULL,
    first_seq   INTEGER NOT NULL,
    last_seq    INTEGER NOT NULL,
    at_ms       INTEGER NOT NULL,
    head_before BLOB    NOT NULL,
    head        BLOB    NOT NULL,
    digest      BLOB    NOT NULL,
    done_seq    INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    PRIMARY KEY (slot, last_batch, dropped)
) STRICT, WITHOUT ROWID;
