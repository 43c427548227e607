"""The trained model as self-contained C99 for microcontrollers."""
