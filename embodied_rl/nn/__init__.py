"""Neural blocks that policies share: attention, diffusion, normalisers, encoders, EMA."""
