"""The speed: what turns losses into parameter updates."""
