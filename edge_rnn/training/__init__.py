"""Training and export with PyTorch (extra `train`); imported by the command line alone, when called."""
