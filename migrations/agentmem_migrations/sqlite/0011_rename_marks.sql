-- Two tables hold marks. This one's say which batches of steps were committed, those of `log_marks`
-- which names occur in which part of the log.
ALTER TABLE marks RENAME TO batch_marks;
