-- What archives have taken over: the entries and batches of a writer from first_* to last_*, in a file of that digest.
-- dropped: evidence (targets and evidence of these entries) or rows (all of it). Up to done_seq it is dropped already.
-- head_before and head are the chain's before and after; state is what it had added up to there. src/ledger/archive/mod.rs
CREATE TABLE archives (
    slot        BIGINT NOT NULL,
    last_batch  BIGINT NOT NULL,
    dropped     TEXT   COLLATE "C" NOT NULL,
    first_batch BIGINT NOT NULL,
    first_seq   BIGINT NOT NULL,
    last_seq    BIGINT NOT NULL,
    at_ms       BIGINT NOT NULL,
    head_before BYTEA  NOT NULL,
    head        BYTEA  NOT NULL,
    digest      BYTEA  NOT NULL,
    done_seq    BIGINT NOT NULL,
    state       TEXT   NOT NULL,
    PRIMARY KEY (slot, last_batch, dropped)
);
