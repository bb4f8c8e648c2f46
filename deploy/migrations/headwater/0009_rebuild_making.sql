-- Whoever works on what stands beside, and each flip, gives it another name, so that nobody goes on with what is not the same any more.
ALTER TABLE headwater.processor_rebuilds ADD COLUMN making text NOT NULL DEFAULT '';
COMMENT ON COLUMN headwater.processor_rebuilds.making IS 'Random; what a rebuild writes beside counts only while this is the one it has set';
