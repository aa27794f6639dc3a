"""What a verdict rests on beside the journal: what changed beyond the write scope, and which model answered."""
