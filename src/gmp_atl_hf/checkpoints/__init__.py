"""Checkpoints, adapters among them: read, refused in plain words, and saved; and whom they have seen."""

from .adapters import Adapter
from .checkpoint import (
    default_feature_extractor,
    describe_backbone,
    identify_weights,
    load_emotion_model,
    load_feature_extractor,
    load_model,
    load_weights,
    locate,
    read_config,
    refuse_missing_folder,
    save_scratch_backbone,
    scratch_config,
    seen_speakers,
    speakers_seen_by,
)
from .heard_by import maybe_seen_stamp
from .heard_recordings import heard_recordings, short_hash, write_heard_recordings
from .loading_errors import explained, quiet_transformers

__all__ = [
    "Adapter",
    "default_feature_extractor",
    "describe_backbone",
    "explained",
    "heard_recordings",
    "identify_weights",
    "load_emotion_model",
    "load_feature_extractor",
    "load_model",
    "load_weights",
    "locate",
    "maybe_seen_stamp",
    "quiet_transformers",
    "read_config",
    "refuse_missing_folder",
    "save_scratch_backbone",
    "scratch_config",
    "seen_speakers",
    "short_hash",
    "speakers_seen_by",
    "write_heard_recordings",
]
