"""The workspace as layers: the user's tree below, a run's changes on top."""
