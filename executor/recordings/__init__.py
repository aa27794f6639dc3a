"""Recordings of real runs: one parser a format, one shape out."""

from __future__ import annotations

from executor.recordings.errors import RecordingInvalid
from executor.recordings.load import FORMATS, load_recording
from executor.recordings.recording import FormatName, RecordedCall, Recording

__all__ = ["FORMATS", "FormatName", "RecordedCall", "Recording", "RecordingInvalid", "load_recording"]
