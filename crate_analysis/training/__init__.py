"""Training the models that the project ships: `python -m crate_analysis.training --help`."""
