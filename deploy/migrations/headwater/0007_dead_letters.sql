-- What a state lacks is part of it, so that a dead letter that is redriven has its effect once.
ALTER TABLE headwater.processor_offsets
  ADD COLUMN redriven text,
  ADD COLUMN holes bigint[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN headwater.processor_offsets.redriven IS 'The last redrive of dead letters whose effects are stored, and what became of each letter';
COMMENT ON COLUMN headwater.processor_offsets.holes IS 'Sequences up to seq whose events are not in the state, since they went to the dead letters';
