"""Data sets: `recamlib.data.access` opens them; images and labels for training, masks for metrics only."""
