"""What a verdict rests on: what changed beyond the write scope, and what a receipt says of it all."""
