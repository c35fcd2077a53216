"""What a run did and what its network learned: NumPy on records and weights, figures with matplotlib."""
