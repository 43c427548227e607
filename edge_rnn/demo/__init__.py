"""A bundled model, simulated pumps and an embedded broker: the whole daemon in one command."""
