"""Scaling, scorer constants and thresholds from data; needs no torch, so it also runs on the device."""
