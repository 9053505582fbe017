"""PTP: a long-context diffusion policy trained to predict past actions too (arXiv 2505.09561)."""
