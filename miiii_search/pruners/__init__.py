"""Rules that end a trial early, and the history of validation losses that they decide on."""
