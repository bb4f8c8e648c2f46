-- A rebuild fills a second state beside the live one, and then gives it the live one's place in one step.
ALTER TABLE headwater.processor_offsets ADD COLUMN namespace text;
COMMENT ON COLUMN headwater.processor_offsets.namespace IS 'What the rows of state are marked with that belong to this offset; NULL: the processor''s own name';

CREATE TABLE headwater.processor_rebuilds (
  processor text PRIMARY KEY,
  state text NOT NULL CHECK (state IN ('filling', 'kept', 'dropping')),
  since timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE headwater.processor_rebuilds IS 'What stands beside the live state of a processor, under the name "<processor>~rebuild" in processor_offsets. Never captured.';
COMMENT ON COLUMN headwater.processor_rebuilds.state IS 'filling: made anew from the log; kept: the former live state; dropping: being removed';
