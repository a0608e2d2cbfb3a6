"""What a bundle is worth: how well it hears, what it costs to run, and the experiments behind the tables."""
