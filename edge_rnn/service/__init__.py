"""The shell around the pure core: MQTT, the SQLite store, the daemon's loop, logs and systemd."""
