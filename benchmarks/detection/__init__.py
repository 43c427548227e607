"""Detectors against public, labelled recordings, strictly streaming: one command for each set.

    python -m benchmarks.detection.skab      FOLDER
    python -m benchmarks.detection.nab       FOLDER
    python -m benchmarks.detection.smap_msl  FOLDER
    python -m benchmarks.detection.merlion   FOLDER

Bring your own data; nothing of it is part of this project. Each command trains on what the set's protocol
allows (networks are cached), calibrates, and streams every file through the very `Detector` that the daemon
runs; no row is seen before its time, no file's range is told to anyone, and no label is used but where a
line says so. Beside the detector stand the same one without its network, its network alone, each scorer
alone, and rules that need no model. Results go to `results/`, and RESULTS.md is made from them.
"""
